#pragma once
// For the tests of the Q8_0 product: a problem, its solution through a ggml graph, and its solution in
// doubles.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "kernels/q8_matmul.h"
#include "kernels/q8_matmul_form.h"

namespace {

using namespace rustasr::kernels;

std::vector<const Q8Form*> forms() {
    int count = 0;
    const Q8Form* const* list = q8_available_forms(&count);
    return {list, list + count};
}

const Q8Form* form_in_use = nullptr;

struct UseForm {
    explicit UseForm(const Q8Form* form) : before(form_in_use) { q8_force_form(form_in_use = form); }
    ~UseForm() { q8_force_form(form_in_use = before); }
    UseForm(const UseForm&) = delete;
    UseForm& operator=(const UseForm&) = delete;
    const Q8Form* before;
};

std::vector<float> normal_values(size_t count, unsigned seed, float scale = 1.0f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::vector<float> values(count);
    for (float& v : values) v = scale * normal(random);
    return values;
}

constexpr Quants kQuants[] = {Quants::Q8_0, Quants::Q4_0};

ggml_type type_of(Quants quants) { return quants == Quants::Q4_0 ? GGML_TYPE_Q4_0 : GGML_TYPE_Q8_0; }

std::vector<uint8_t> file_rows(const std::vector<float>& values, int64_t k, int64_t n,
                               Quants quants = Quants::Q8_0) {
    std::vector<uint8_t> rows(ggml_row_size(type_of(quants), k) * static_cast<size_t>(n));
    ggml_quantize_chunk(type_of(quants), values.data(), rows.data(), 0, n, k, nullptr);
    return rows;
}

std::vector<uint8_t> random_rows(int64_t k, int64_t n, unsigned seed, Quants quants = Quants::Q8_0) {
    return file_rows(normal_values(static_cast<size_t>(k * n), seed, 0.05f), k, n, quants);
}

// The values that a file's rows mean.
std::vector<float> values_of_rows(const std::vector<uint8_t>& rows, int64_t k, int64_t n, Quants quants) {
    std::vector<float> values(static_cast<size_t>(k * n));
    ggml_get_type_traits(type_of(quants))->to_float(rows.data(), values.data(), k * n);
    return values;
}

// A graph on the CPU backend: tensors are made in ctx, filled once allocated, then computed.
class Graph {
   public:
    Graph() {
        ggml_init_params params = {};
        params.mem_size = 1 << 20;
        params.no_alloc = true;
        inputs = ggml_init(params);
        ctx = ggml_init(params);
        backend = ggml_backend_cpu_init();
    }
    ~Graph() {
        if (allocator != nullptr) ggml_gallocr_free(allocator);
        if (buffer != nullptr) ggml_backend_buffer_free(buffer);
        ggml_free(ctx);
        ggml_free(inputs);
        ggml_backend_free(backend);
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    ggml_tensor* input(ggml_type type, std::vector<int64_t> ne) {
        ne.resize(4, 1);
        return ggml_new_tensor(inputs, type, 4, ne.data());
    }
    void allocate() { buffer = ggml_backend_alloc_ctx_tensors(inputs, backend); }
    std::vector<float> compute(ggml_tensor* result, int threads) {
        ggml_backend_cpu_set_n_threads(backend, threads);
        ggml_set_output(result);
        ggml_cgraph* graph = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, result);
        allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
        REQUIRE(ggml_gallocr_alloc_graph(allocator, graph));
        REQUIRE(ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS);
        std::vector<float> out(static_cast<size_t>(ggml_nelements(result)));
        ggml_backend_tensor_get(result, out.data(), 0, out.size() * sizeof(float));
        return out;
    }

    ggml_context* inputs = nullptr;
    ggml_context* ctx = nullptr;
    ggml_backend_t backend = nullptr;
    ggml_backend_buffer_t buffer = nullptr;
    ggml_gallocr_t allocator = nullptr;
};

struct Problem {
    int64_t k, n;
    std::vector<int64_t> rows;          // M, B1, B2
    std::vector<uint8_t> weights;       // rows as in a file
    std::vector<float> x;               // contiguous
    std::vector<float> bias, residual;  // empty: none
    float scale = 1;                    // with a residual
    Activation activation = Activation::None;
    Rounding rounding = Rounding::Once;
    Quants quants = Quants::Q8_0;

    int64_t n_rows() const {
        int64_t total = 1;
        for (int64_t r : rows) total *= r;
        return total;
    }
};

Problem make_problem(int64_t k, int64_t n, std::vector<int64_t> rows, unsigned seed,
                     Quants quants = Quants::Q8_0) {
    Problem p;
    p.quants = quants;
    p.k = k;
    p.n = n;
    p.rows = std::move(rows);
    p.weights = random_rows(k, n, seed, quants);
    p.x = normal_values(static_cast<size_t>(k * p.n_rows()), seed + 1);
    return p;
}

std::vector<float> solve(const Problem& p, const Q8Form* form, int threads = 2) {
    const UseForm use(form);
    Graph g;
    ggml_tensor* w = g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(p.k, p.n, p.quants))});
    std::vector<int64_t> x_ne = {p.k}, y_ne = {p.n};
    x_ne.insert(x_ne.end(), p.rows.begin(), p.rows.end());
    y_ne.insert(y_ne.end(), p.rows.begin(), p.rows.end());
    ggml_tensor* x = g.input(GGML_TYPE_F32, x_ne);
    ggml_tensor* bias = p.bias.empty() ? nullptr : g.input(GGML_TYPE_F32, {p.n});
    ggml_tensor* residual = p.residual.empty() ? nullptr : g.input(GGML_TYPE_F32, y_ne);
    g.allocate();
    q8_pack(p.weights.data(), p.k, p.n, w->data, p.quants);
    ggml_backend_tensor_set(x, p.x.data(), 0, ggml_nbytes(x));
    if (bias) ggml_backend_tensor_set(bias, p.bias.data(), 0, ggml_nbytes(bias));
    if (residual) ggml_backend_tensor_set(residual, p.residual.data(), 0, ggml_nbytes(residual));
    return g.compute(q8_linear(g.ctx, w, p.k, p.n, q8_quantize(g.ctx, x, p.rounding), bias, p.activation,
                               residual, p.scale, p.quants),
                     threads);
}

double exact_activation(double z, Activation activation) {
    switch (activation) {
        case Activation::Gelu:
            return 0.5 * z * std::erfc(-z / std::sqrt(2.0));
        case Activation::Silu:
            return z / (1.0 + std::exp(-z));
        case Activation::Relu:
            return std::max(z, 0.0);
        case Activation::None:
            break;
    }
    return z;
}

// A row of x as its rounding leaves it.
std::vector<double> rounded(const float* x, int64_t k, Rounding rounding) {
    std::vector<float> rest(x, x + k);
    std::vector<double> values(static_cast<size_t>(k), 0.0);
    std::vector<uint8_t> xq(q8_quantized_row_nbytes(k));
    for (int time = 0; time < static_cast<int>(rounding); ++time) {
        kQ8Portable.quantize(rest.data(), k, 0, k / 32, xq.data());
        for (size_t i = 0; i < rest.size(); ++i) {
            float scale;
            std::memcpy(&scale, xq.data() + k + 4 * (i / 32), 4);
            const auto q = static_cast<float>(static_cast<int8_t>(xq[i]));
            values[i] += static_cast<double>(scale) * q;
            rest[i] -= scale * q;
        }
    }
    return values;
}

// The result in doubles from the quantised values, and for each the tolerance: 1e-5 of the sum of the blocks'
// magnitudes (and of what is added to them), which is what a sum in F32 can promise.
void exact(const Problem& p, std::vector<double>& y, std::vector<double>& tolerance) {
    const std::vector<float> weights = values_of_rows(p.weights, p.k, p.n, p.quants);
    y.assign(static_cast<size_t>(p.n * p.n_rows()), 0.0);
    tolerance = y;
    for (int64_t m = 0; m < p.n_rows(); ++m) {
        const std::vector<double> x = rounded(p.x.data() + m * p.k, p.k, p.rounding);
        for (int64_t r = 0; r < p.n; ++r) {
            double sum = 0.0, magnitude = 0.0;
            for (int64_t b = 0; b < p.k; b += 32) {
                double term = 0.0;
                for (int64_t i = b; i < b + 32; ++i) {
                    term += static_cast<double>(weights[static_cast<size_t>(r * p.k + i)]) *
                            x[static_cast<size_t>(i)];
                }
                sum += term;
                magnitude += std::fabs(term);
            }
            const size_t i = static_cast<size_t>(m * p.n + r);
            const double bias = p.bias.empty() ? 0.0 : p.bias[static_cast<size_t>(r)];
            const double residual = p.residual.empty() ? 0.0 : p.residual[i];
            y[i] = p.scale * exact_activation(sum + bias, p.activation) + residual;
            tolerance[i] = 1e-5 * (magnitude + std::fabs(bias) + std::fabs(residual)) + 1e-37;
        }
    }
}

[[maybe_unused]] void check_problem(const Problem& p, const Q8Form* form, int threads = 2) {
    std::vector<double> expected, tolerance;
    exact(p, expected, tolerance);
    const std::vector<float> found = solve(p, form, threads);
    REQUIRE(found.size() == expected.size());
    double worst = 0.0;
    size_t where = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        const double error = std::fabs(found[i] - expected[i]) / tolerance[i];
        if (!(error <= worst)) {
            worst = error;
            where = i;
        }
    }
    if (!(worst <= 1.0)) {
        rustasr::test::fail(__FILE__, __LINE__,
                            std::string(form->name) + " " + ggml_type_name(type_of(p.quants)) +
                                " k=" + std::to_string(p.k) + " n=" + std::to_string(p.n) +
                                " rows=" + std::to_string(p.n_rows()) + ": element " + std::to_string(where) +
                                " is off by " + std::to_string(worst) + " tolerances");
    }
    rustasr::test::count_check();
}

}  // namespace
