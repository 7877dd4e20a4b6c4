// The elementwise kernels of every form that this machine can run, against double precision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "kernels/elementwise.h"
#include "kernels/elementwise_form.h"

namespace {

using namespace rustasr::kernels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_values(size_t n, float mean, float spread, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> x(n);
    for (float& v : x) v = mean + spread * normal(random);
    return x;
}

const int64_t kCounts[] = {1, 3, 4, 15, 16, 17, 63, 64, 65, 100, 1023, 1024, 1025, 5000, 51866};

// x as [n, rows] inside wider rows of NaN; weight and bias of n.
struct Operands {
    Operands(int64_t n, int64_t rows, float mean, float spread)
        : context(ggml_init({1 << 20, nullptr, true})) {
        ggml_tensor* wide = ggml_new_tensor_2d(context, GGML_TYPE_F32, n + 5, rows);
        x = ggml_view_2d(context, wide, n, rows, wide->nb[1], 2 * sizeof(float));
        weight = ggml_new_tensor_1d(context, GGML_TYPE_F32, n);
        bias = ggml_new_tensor_1d(context, GGML_TYPE_F32, n);
        backend = ggml_backend_cpu_init();
        buffer = ggml_backend_alloc_ctx_tensors(context, backend);
        std::fill_n(static_cast<float*>(wide->data), (n + 5) * rows, NAN);
        values = random_values(static_cast<size_t>(n * rows), mean, spread, 7);
        for (int64_t r = 0; r < rows; r++) {
            memcpy(static_cast<char*>(x->data) + static_cast<size_t>(r) * x->nb[1], &values[r * n],
                   static_cast<size_t>(n) * sizeof(float));
        }
        weights = random_values(static_cast<size_t>(n), 1, 1, 8);
        biases = random_values(static_cast<size_t>(n), 0, 1, 9);
        memcpy(weight->data, weights.data(), weights.size() * sizeof(float));
        memcpy(bias->data, biases.data(), biases.size() * sizeof(float));
    }
    Operands(const Operands&) = delete;
    ~Operands() {
        ggml_backend_buffer_free(buffer);
        ggml_backend_free(backend);
        ggml_free(context);
    }
    template <class Build>
    std::vector<float> run(int threads, const Build& build) const {
        ggml_context* c = ggml_init({1 << 20, nullptr, true});
        ggml_tensor* y = build(c);
        ggml_cgraph* graph = ggml_new_graph(c);
        ggml_build_forward_expand(graph, y);
        ggml_backend_buffer_t out = ggml_backend_alloc_ctx_tensors(c, backend);
        ggml_backend_cpu_set_n_threads(backend, threads);
        ggml_backend_graph_compute(backend, graph);
        std::vector<float> result(static_cast<size_t>(ggml_nelements(y)));
        memcpy(result.data(), y->data, result.size() * sizeof(float));
        ggml_backend_buffer_free(out);
        ggml_free(c);
        return result;
    }
    ggml_context* context;
    ggml_backend_t backend;
    ggml_backend_buffer_t buffer;
    ggml_tensor *x, *weight, *bias;
    std::vector<float> values, weights, biases;
};

}  // namespace

TEST_CASE("log_sum_exp: 1e-6 of the sum, at every count, shift and spread") {
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        for (int64_t n : kCounts) {
            for (float spread : {0.0f, 1.0f, 10.0f}) {
                for (float mean : {0.0f, -50.0f}) {
                    const std::vector<float> x = random_values(static_cast<size_t>(n), mean, spread, 1);
                    const double best = *std::max_element(x.begin(), x.end());
                    double sum = 0;
                    for (float v : x) sum += std::exp(v - best);
                    const float shift = form->maximum(x.data(), n);
                    CHECK(shift == best);
                    CHECK_NEAR(form->sum_exp(x.data(), n, shift) / sum, 1.0, 1e-6);
                    CHECK_NEAR(log_sum_exp_with(*form, x.data(), n), best + std::log(sum), 1e-5);
                }
            }
        }
    }
}

TEST_CASE("log_sum_exp: suppressed values, none, and nothing else") {
    std::vector<float> x = random_values(1000, 0, 3, 2), kept;
    for (size_t i = 0; i < x.size(); i++) {
        if (i % 3 == 0) x[i] = -kInfinity;
        if (i % 3 != 0) kept.push_back(x[i]);
    }
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        CHECK_NEAR(log_sum_exp_with(*form, x.data(), 1000),
                   log_sum_exp_with(*form, kept.data(), static_cast<int64_t>(kept.size())), 2e-6);
        const std::vector<float> none(100, -kInfinity);
        CHECK(log_sum_exp_with(*form, none.data(), 100) == -kInfinity);
        CHECK(log_sum_exp_with(*form, none.data(), 0) == -kInfinity);
    }
}

TEST_CASE("argmax: the first of the greatest; NaN never wins") {
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        for (int64_t n : kCounts) {
            std::vector<float> x = random_values(static_cast<size_t>(n), -5, 2, 3);
            CHECK(form->argmax(x.data(), n) == std::max_element(x.begin(), x.end()) - x.begin());
            for (int64_t at : {n - 1, n / 2, n / 3}) {
                x[at] = 100;
                CHECK(form->argmax(x.data(), n) == at);
            }
            if (n > 4) {
                x[0] = x[n / 2 + 1] = NAN;
                CHECK(form->argmax(x.data(), n) == n / 3);
            }
        }
        CHECK(form->argmax(nullptr, 0) == -1);
        const std::vector<float> none(50, -kInfinity), nan(50, NAN);
        CHECK(form->argmax(none.data(), 50) == 0);
        CHECK(form->argmax(nan.data(), 50) == 0);
    }
}

TEST_CASE("layer_norm: 1e-5 of double precision, strided rows, equal for every thread count") {
    for (int64_t n : {1, 5, 64, 384, 385, 1280}) {
        for (float mean : {0.0f, 30.0f}) {
            const Operands o(n, 7, mean, 2);
            for (const ElementwiseForm* form : elementwise_usable_forms()) {
                for (bool with_bias : {true, false}) {
                    const auto build = [&](ggml_context* c) {
                        return layer_norm_with(*form, c, o.x, o.weight, with_bias ? o.bias : nullptr, 1e-5f);
                    };
                    const std::vector<float> y = o.run(1, build);
                    CHECK(o.run(2, build) == y);
                    CHECK(o.run(3, build) == y);
                    for (int64_t r = 0; r < 7; r++) {
                        const float* x = &o.values[r * n];
                        double m = 0, variance = 0;
                        for (int64_t i = 0; i < n; i++) m += x[i] / static_cast<double>(n);
                        for (int64_t i = 0; i < n; i++)
                            variance += (x[i] - m) * (x[i] - m) / static_cast<double>(n);
                        for (int64_t i = 0; i < n; i++) {
                            const double z = (x[i] - m) / std::sqrt(variance + 1e-5) * o.weights[i];
                            CHECK_NEAR(y[r * n + i], z + (with_bias ? o.biases[i] : 0.0f),
                                       n == 1 ? 1e-3 : 1e-5 + 1e-6 * mean);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("gelu_erf: 1e-6 of double precision from -12 to 12, with and without bias") {
    const Operands o(1500, 3, 0, 3);
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        std::vector<float> x, y;
        for (int i = -12 * 512; i <= 12 * 512; i++) x.push_back(static_cast<float>(i) / 512.0f);
        y.resize(x.size());
        form->gelu(x.data(), nullptr, static_cast<int64_t>(x.size()), y.data());
        for (size_t i = 0; i < x.size(); i++) {
            const double z = x[i], expected = 0.5 * z * std::erfc(-z / std::sqrt(2.0));
            CHECK_NEAR(y[i], expected, 1e-6 * std::max(1.0, std::fabs(z)));
        }
        for (bool with_bias : {true, false}) {
            const auto build = [&](ggml_context* c) {
                return gelu_erf_with(*form, c, o.x, with_bias ? o.bias : nullptr);
            };
            const std::vector<float> result = o.run(1, build);
            CHECK(o.run(2, build) == result);
            CHECK(o.run(3, build) == result);
            for (size_t i = 0; i < result.size(); i++) {
                const double z = o.values[i] + (with_bias ? o.biases[i % 1500] : 0.0f);
                CHECK_NEAR(result[i], 0.5 * z * std::erfc(-z / std::sqrt(2.0)),
                           1e-6 * std::max(1.0, std::fabs(z)));
            }
        }
    }
}

TEST_CASE("silu: 1e-5 of double precision from -80 to 100, with and without bias, no overflow") {
    const Operands o(1500, 3, 0, 3);
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        std::vector<float> x, y;
        for (int i = -80 * 64; i <= 100 * 64; i++) x.push_back(static_cast<float>(i) / 64.0f);
        y.resize(x.size());
        form->silu(x.data(), nullptr, static_cast<int64_t>(x.size()), y.data());
        for (size_t i = 0; i < x.size(); i++) {
            const double expected = x[i] / (1 + std::exp(-static_cast<double>(x[i])));
            CHECK_NEAR(y[i], expected, 1e-5 * std::fabs(expected));
        }
        const std::vector<float> great = {-1e30f, -1000.0f, 1000.0f, 1e30f};
        form->silu(great.data(), nullptr, 4, y.data());
        CHECK(std::fabs(y[0]) < 1e-5 && std::fabs(y[1]) < 1e-30 && y[2] == 1000.0f && y[3] == 1e30f);
        for (bool with_bias : {true, false}) {
            const auto build = [&](ggml_context* c) {
                return silu_with(*form, c, o.x, with_bias ? o.bias : nullptr);
            };
            const std::vector<float> result = o.run(1, build);
            CHECK(o.run(3, build) == result);
            for (size_t i = 0; i < result.size(); i++) {
                const double z = o.values[i] + (with_bias ? o.biases[i % 1500] : 0.0f);
                CHECK_NEAR(result[i], z / (1 + std::exp(-z)), 1e-6 * std::max(1.0, std::fabs(z)));
            }
        }
    }
}

TEST_CASE("add_scaled: with and without bias, strided operands") {
    for (int64_t n : {1, 5, 64, 1500}) {
        const Operands o(n, 3, 0, 3);
        for (const ElementwiseForm* form : elementwise_usable_forms()) {
            for (bool with_bias : {true, false}) {
                const auto build = [&](ggml_context* c) {
                    return add_scaled_with(*form, c, o.x, with_bias ? o.bias : nullptr, 0.5f, o.x);
                };
                const std::vector<float> result = o.run(1, build);
                CHECK(o.run(3, build) == result);
                for (size_t i = 0; i < result.size(); i++) {
                    const double x = o.values[i], b = with_bias ? o.biases[i % n] : 0.0f;
                    CHECK_NEAR(result[i], x + 0.5 * (x + b), 1e-6 * std::max(1.0, std::fabs(x)));
                }
            }
        }
    }
}

TEST_CASE("elementwise: wrong operands are refused") {
    const Operands o(64, 2, 0, 1), other(65, 2, 0, 1);
    CHECK_THROWS(layer_norm(o.context, o.x, other.weight, nullptr, 1e-5f), rustasr::OptionError,
                 "64 elements");
    CHECK_THROWS(gelu_erf(o.context, o.x, other.bias), rustasr::OptionError, "found 65");
    CHECK_THROWS(silu(o.context, o.x, other.bias), rustasr::OptionError, "found 65");
    CHECK_THROWS(add_scaled(o.context, o.x, nullptr, 1, other.x), rustasr::OptionError,
                 "130 elements for 128");
}

TEST_CASE("rms_norm: 1e-5 of the double-precision norm at every width, strided rows") {
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        for (int64_t n : kCounts) {
            const Operands o(n, 3, 0.5f, 2.0f);
            const auto y =
                o.run(2, [&](ggml_context* c) { return rms_norm_with(*form, c, o.x, o.weight, 1e-6f); });
            for (int64_t r = 0; r < 3; r++) {
                double squares = 0;
                for (int64_t i = 0; i < n; i++) squares += std::pow(o.values[r * n + i], 2);
                const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
                for (int64_t i = 0; i < n; i++) {
                    const double wanted = o.values[r * n + i] * factor * o.weights[i];
                    CHECK_NEAR(y[r * n + i], wanted, 1e-5 * (1 + std::abs(wanted)));
                }
            }
        }
    }
}

TEST_CASE(
    "rms_norm_rotate: heads in place by their weights and their token's angles, what lies beside untouched") {
    constexpr int64_t kHeads = 5, kFirst = 3, kTokens = 4, kBeside = 7;
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        for (int64_t d : {2, 8, 20, 64, 100, 128}) {
            const auto size = static_cast<size_t>(d);
            const int64_t row = kHeads * d + kBeside;
            ggml_context* c = ggml_init({1 << 20, nullptr, true});
            ggml_tensor* wide = ggml_new_tensor_2d(c, GGML_TYPE_F32, row, kTokens);
            ggml_tensor* weights[2] = {ggml_new_tensor_1d(c, GGML_TYPE_F32, d),
                                       ggml_new_tensor_1d(c, GGML_TYPE_F32, d)};
            ggml_tensor* turns = ggml_new_tensor_2d(c, GGML_TYPE_F32, d, kTokens);
            ggml_tensor* heads = ggml_view_3d(c, wide, d, kHeads, kTokens, size * 4, wide->nb[1], 0);
            ggml_cgraph* graph = ggml_new_graph(c);
            ggml_build_forward_expand(graph,
                                      rms_norm_rotate_with(*form, c, heads, weights, kFirst, 1e-6f, turns));
            ggml_backend_t backend = ggml_backend_cpu_init();
            ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend);
            const auto fill = [](ggml_tensor* t, float mean, unsigned seed) {
                const auto made = random_values(static_cast<size_t>(ggml_nelements(t)), mean, 1, seed);
                memcpy(t->data, made.data(), made.size() * sizeof(float));
                return made;
            };
            const auto x = fill(wide, 0, 1), first = fill(weights[0], 1, 2), second = fill(weights[1], 1, 3),
                       angles = fill(turns, 0, 4);  // any numbers: the kernel only multiplies
            ggml_backend_cpu_set_n_threads(backend, 2);
            ggml_backend_graph_compute(backend, graph);
            const auto* y = static_cast<const float*>(wide->data);
            for (int64_t t = 0; t < kTokens; t++) {
                for (int64_t h = 0; h < kHeads; h++) {
                    const float* in = &x[static_cast<size_t>(t * row + h * d)];
                    const float* w = h < kFirst ? first.data() : second.data();
                    double squares = 0;
                    for (int64_t i = 0; i < d; i++) squares += static_cast<double>(in[i]) * in[i];
                    const double factor = 1 / std::sqrt(squares / static_cast<double>(d) + 1e-6);
                    for (int64_t i = 0; i < d / 2; i++) {
                        const double a = in[i] * factor * w[i], b = in[d / 2 + i] * factor * w[d / 2 + i];
                        const double cosine = angles[static_cast<size_t>(t * d + i)],
                                     sine = angles[static_cast<size_t>(t * d + d / 2 + i)];
                        CHECK_NEAR(y[t * row + h * d + i], a * cosine - b * sine, 2e-5);
                        CHECK_NEAR(y[t * row + h * d + d / 2 + i], a * sine + b * cosine, 2e-5);
                    }
                }
                for (int64_t i = kHeads * d; i < row; i++)
                    CHECK(y[t * row + i] == x[static_cast<size_t>(t * row + i)]);
            }
            ggml_backend_buffer_free(buffer);
            ggml_backend_free(backend);
            ggml_free(c);
        }
    }
}
