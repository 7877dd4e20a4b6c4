// The product of Q8_0 and Q4_0 weights: every form that this processor has, against exact arithmetic on the
// quantised values.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "q8_problem.h"

namespace {

std::vector<uint8_t> quantized(const Q8Form* form, const std::vector<float>& x) {
    const int64_t k = static_cast<int64_t>(x.size());
    std::vector<uint8_t> out(q8_quantized_row_nbytes(k), 0xcc);
    form->quantize(x.data(), k, 0, k / 32, out.data());
    return out;
}

}  // namespace

TEST_CASE("q8: every form is within 1e-5 of exact arithmetic on the quantised values") {
    const int64_t ks[] = {32, 64, 96, 384, 1280};
    const int64_t ns[] = {1, 7, 16, 17, 33, 64, 81, 200};
    const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 50};
    unsigned seed = 1;
    for (const Q8Form* form : forms()) {
        for (int64_t k : ks) {
            for (int64_t n : ns) {
                for (int64_t m : rows) {
                    ++seed;
                    if (k == 1280 && seed % 5 != 0) continue;  // the large ones: a sample
                    for (Quants quants : kQuants) check_problem(make_problem(k, n, {m}, seed, quants), form);
                }
            }
        }
    }
}

TEST_CASE("q8: activations rounded twice, in every form: exact on the rounded values, and 15 bits of x") {
    const int64_t shapes[][3] = {{32, 16, 1}, {64, 33, 2},    {96, 81, 7},   {384, 1152, 1},
                                 {384, 7, 5}, {1280, 200, 3}, {1536, 40, 13}};
    unsigned seed = 900;
    for (const Q8Form* form : forms()) {
        for (const auto& s : shapes) {
            ++seed;
            Problem p = make_problem(s[0], s[1], {s[2]}, seed, kQuants[seed % 2]);
            p.rounding = Rounding::Twice;
            check_problem(p, form);
            for (int64_t m = 0; m < s[2]; ++m) {
                const std::vector<double> kept = rounded(p.x.data() + m * p.k, p.k, p.rounding);
                for (size_t i = 0; i < kept.size(); ++i) {
                    CHECK_NEAR(kept[i], p.x[static_cast<size_t>(m * p.k) + i], 4.5 / (2 * 127 * 2 * 127));
                }
            }
            p.bias = normal_values(static_cast<size_t>(p.n), seed);
            p.residual = normal_values(static_cast<size_t>(p.n * p.n_rows()), seed + 1);
            p.activation = Activation::Gelu;
            p.scale = 0.5f;
            check_problem(p, form);
            const std::vector<float> one = solve(p, form, 1);
            for (int threads : {2, 3}) CHECK(solve(p, form, threads) == one);
        }
        Problem bad = make_problem(96, 20, {3}, 77);
        bad.rounding = Rounding::Twice;
        bad.x[96 + 40] = std::numeric_limits<float>::infinity();
        const std::vector<float> found = solve(bad, form);
        for (size_t i = 0; i < found.size(); ++i) CHECK(std::isnan(found[i]) == (i / 20 == 1));
    }
}

TEST_CASE("q8: long sums and several chunks of weights") {
    for (const Q8Form* form : forms()) {
        for (Quants quants : kQuants) {
            check_problem(make_problem(5120, 100, {9}, 3, quants), form);
            check_problem(make_problem(1024, 1000, {7}, 4, quants), form);
            check_problem(make_problem(1024, 1000, {1}, 4, quants), form);
        }
    }
}

TEST_CASE("q8: bias, activations and residual, with every tail of n") {
    const Activation activations[] = {Activation::None, Activation::Gelu, Activation::Silu, Activation::Relu};
    for (const Q8Form* form : forms()) {
        for (Activation activation : activations) {
            for (int64_t n = 30; n <= 50; n += 1) {
                Problem p = make_problem(64, n, {5, 2}, static_cast<unsigned>(n), kQuants[n / 2 % 2]);
                p.activation = activation;
                if (n % 3 != 0) p.bias = normal_values(static_cast<size_t>(n), 5, 3.0f);
                if (n % 2 != 0) p.residual = normal_values(static_cast<size_t>(n * 10), 6);
                if (n % 4 == 1) p.scale = 0.5f;
                check_problem(p, form);
            }
        }
    }
}

// With zero weights the result is activation(bias).
TEST_CASE("q8: GELU and SiLU are accurate over the whole range") {
    std::vector<float> z;
    for (int i = -20000; i <= 20000; i++) z.push_back(static_cast<float>(i) / 1000.0f);
    for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 5.1f, -5.1f, 87.0f, -87.0f, -88.5f, -104.0f, 1e4f, -1e4f,
                    1e30f, -1e30f}) {
        z.push_back(v);
    }
    for (const Q8Form* form : forms()) {
        for (Activation activation : {Activation::Gelu, Activation::Silu}) {
            Problem p = make_problem(32, static_cast<int64_t>(z.size()), {1}, 1);
            p.x.assign(32, 0.0f);
            p.bias = z;
            p.activation = activation;
            const std::vector<float> y = solve(p, form);
            double worst = 0.0;
            for (size_t i = 0; i < z.size(); ++i) {
                const double expected = exact_activation(z[i], activation);
                // silu(z) below -88 is z times less than 1e-38: only its order is asked for.
                const double unit = activation == Activation::Gelu
                                        ? std::fabs(z[i])
                                        : std::fabs(expected) + 1e-32 * std::fabs(z[i]);
                worst = std::max(worst, std::fabs(y[i] - expected) / (unit + 1e-33));
            }
            CHECK_NEAR(worst, 0.0, activation == Activation::Gelu ? 5e-7 : 1e-6);
            CHECK(std::fabs(y.back()) < 1e-5f);  // of -1e30
        }
    }
}

TEST_CASE("q8: the result does not depend on the number of threads") {
    const int64_t shapes[][3] = {{384, 100, 1}, {384, 1000, 37}, {64, 20, 200}, {32, 5, 2}};
    for (const Q8Form* form : forms()) {
        for (const auto& s : shapes) {
            Problem p = make_problem(s[0], s[1], {s[2]}, 11, kQuants[s[0] % 128 / 64]);
            p.bias = normal_values(static_cast<size_t>(p.n), 12);
            p.activation = Activation::Gelu;
            const std::vector<float> one = solve(p, form, 1);
            for (int threads : {2, 3, 4, 6}) CHECK(solve(p, form, threads) == one);
        }
    }
}

TEST_CASE("q8: a row's result does not depend on the other rows") {
    for (const Q8Form* form : forms()) {
        for (Quants quants : kQuants) {
            const Problem all = make_problem(128, 150, {23}, 21, quants);
            const std::vector<float> together = solve(all, form);
            for (int64_t m = 0; m < 23; ++m) {
                Problem one = all;
                one.rows = {1};
                one.x.assign(all.x.begin() + m * 128, all.x.begin() + (m + 1) * 128);
                const std::vector<float> alone = solve(one, form);
                CHECK(std::equal(alone.begin(), alone.end(), together.begin() + m * 150));
            }
        }
    }
}

TEST_CASE("q8: strided x and residual, batched") {
    constexpr int64_t k = 96, n = 40, T = 9, B = 3;
    const std::vector<float> wide_x = normal_values(2 * k * T * B, 31),
                             wide_y = normal_values(2 * n * T * B, 32);
    Problem p = make_problem(k, n, {T, B}, 33);
    p.residual.resize(n * T * B);
    for (int64_t r = 0; r < T * B; ++r) {  // the second half of each wide row
        std::copy_n(wide_x.begin() + r * 2 * k + k, k, p.x.begin() + r * k);
        std::copy_n(wide_y.begin() + r * 2 * n + n, n, p.residual.begin() + r * n);
    }
    for (const Q8Form* form : forms()) {
        const UseForm use(form);
        Graph g;
        ggml_tensor* w = g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(k, n))});
        ggml_tensor* x = g.input(GGML_TYPE_F32, {2 * k, T, B});
        ggml_tensor* r = g.input(GGML_TYPE_F32, {2 * n, T, B});
        g.allocate();
        q8_pack(p.weights.data(), k, n, w->data);
        ggml_backend_tensor_set(x, wide_x.data(), 0, ggml_nbytes(x));
        ggml_backend_tensor_set(r, wide_y.data(), 0, ggml_nbytes(r));
        ggml_tensor* rows = ggml_view_3d(g.ctx, x, k, T, B, x->nb[1], x->nb[2], k * sizeof(float));
        ggml_tensor* residual = ggml_view_3d(g.ctx, r, n, T, B, r->nb[1], r->nb[2], n * sizeof(float));
        ggml_tensor* y =
            q8_linear(g.ctx, w, k, n, q8_quantize(g.ctx, rows), nullptr, Activation::None, residual);
        CHECK(y->ne[0] == n && y->ne[1] == T && y->ne[2] == B && y->ne[3] == 1);
        const std::vector<float> found = g.compute(y, 2);
        CHECK(found == solve(p, form));
        check_problem(p, form);
    }
}

TEST_CASE("q8: the frames of a convolution, padded and strided, equal the rows laid out") {
    const UseForm use_best(forms()[0]);
    constexpr int64_t kChannels = 48, n = 20, B = 2;
    const int64_t cases[][4] = {{19, 4, 2, 0}, {19, 4, 1, 1}, {20, 4, 2, 1},
                                {5, 4, 3, 2},  {2, 6, 1, 2},  {9, 3, 1, 1}};
    for (const auto& c : cases) {
        const int64_t frames = c[0], taps = c[1], stride = c[2], padding = c[3];
        if (taps * kChannels % 32 != 0) {
            Graph g;
            ggml_tensor* x = g.input(GGML_TYPE_F32, {kChannels, frames, B});
            CHECK_THROWS(q8_quantize_frames(g.ctx, x, taps, stride, padding), std::invalid_argument, "32");
            continue;
        }
        const int64_t rows = (frames + 2 * padding - taps) / stride + 1, k = taps * kChannels;
        const std::vector<float> signal = normal_values(static_cast<size_t>(kChannels * frames * B), 35);
        Problem p = make_problem(k, n, {rows, B}, 36);
        for (int64_t i = 0; i < k * rows * B; ++i) {
            const int64_t frame = i / k % rows * stride - padding + i % k / kChannels, batch = i / k / rows;
            p.x[static_cast<size_t>(i)] =
                frame < 0 || frame >= frames
                    ? 0.0f
                    : signal[static_cast<size_t>((batch * frames + frame) * kChannels + i % kChannels)];
        }
        for (const Q8Form* form : forms()) {
            const UseForm use(form);
            Graph g;
            ggml_tensor* w = g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(k, n))});
            ggml_tensor* x = g.input(GGML_TYPE_F32, {kChannels, frames, B});
            g.allocate();
            q8_pack(p.weights.data(), k, n, w->data);
            ggml_backend_tensor_set(x, signal.data(), 0, ggml_nbytes(x));
            ggml_tensor* xq = q8_quantize_frames(g.ctx, x, taps, stride, padding);
            REQUIRE(xq->ne[1] == rows && xq->ne[2] == B);
            CHECK(g.compute(q8_linear(g.ctx, w, k, n, xq, nullptr, Activation::None, nullptr), 3) ==
                  solve(p, form));
        }
    }
}

TEST_CASE("q8: all forms quantise activations to the same bytes") {
    std::vector<std::vector<float>> rows;
    rows.push_back(normal_values(1280, 41));
    rows.push_back(normal_values(96, 42, 1e30f));
    rows.push_back(normal_values(96, 43, 1e-30f));
    rows.push_back(std::vector<float>(64, 0.0f));
    rows.push_back(normal_values(64, 44, 1e-40f));  // denormal
    rows.push_back(std::vector<float>(64, std::numeric_limits<float>::max()));
    rows.push_back(std::vector<float>(64, -std::numeric_limits<float>::max()));
    std::vector<float> halves;  // exact ties of the rounding
    for (int i = 0; i < 32; ++i) halves.push_back(i == 0 ? 127.0f : static_cast<float>(i) - 15.5f);
    rows.push_back(halves);
    for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> row = normal_values(96, 45);
        row[40] = bad;
        rows.push_back(row);
    }
    for (const auto& row : rows) {
        for (const Q8Form* form : forms()) CHECK(quantized(form, row) == quantized(&kQ8Portable, row));
    }
}

TEST_CASE("q8: quantised activations are Q8_0's, with the scale in F32") {
    const UseForm use(forms()[0]);
    const std::vector<float> x = normal_values(320, 51);
    const std::vector<uint8_t> xq = quantized(forms()[0], x), file = file_rows(x, 320, 1);
    int differing = 0;
    for (int b = 0; b < 10; ++b) {
        float scale;
        ggml_fp16_t half;
        std::memcpy(&scale, xq.data() + 320 + 4 * b, 4);
        std::memcpy(&half, file.data() + 34 * b, 2);
        CHECK_NEAR(scale / ggml_fp16_to_fp32(half), 1.0, 1e-3);
        for (int i = 0; i < 32; ++i) {
            differing += static_cast<int8_t>(xq[32 * b + i]) != static_cast<int8_t>(file[34 * b + 2 + i]);
        }
    }
    CHECK(differing <= 1);  // only where a value lies on a boundary of the rounding
}

TEST_CASE("q8: extreme activations") {
    for (const Q8Form* form : forms()) {
        for (float scale : {0.0f, 1e-42f, 1e-36f, 1e-30f, 1e30f}) {
            Problem p = make_problem(96, 40, {7}, 61);
            for (float& v : p.x) v *= scale;
            check_problem(p, form);
        }
        Problem p = make_problem(96, 40, {7}, 62);
        std::fill(p.x.begin(), p.x.end(), -127.0f);  // the greatest sums that occur
        for (size_t i = 0; i < p.weights.size(); ++i) {
            if (i % 34 >= 2)
                p.weights[i] = i / 34 % 2 ? 0x80 : 0x7f;  // -128, which ggml never writes, and 127
        }
        check_problem(p, form);

        p = make_problem(96, 40, {7}, 62, Quants::Q4_0);
        std::fill(p.x.begin(), p.x.end(), -127.0f);
        for (size_t i = 0; i < p.weights.size(); ++i) {
            if (i % 18 >= 2) p.weights[i] = i / 18 % 2 ? 0x00 : 0xff;  // -8 and 7
        }
        check_problem(p, form);
    }
}

TEST_CASE("q8: a NaN or an infinity makes its own row NaN and no other") {
    for (const Q8Form* form : forms()) {
        for (float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
            for (Activation activation :
                 {Activation::None, Activation::Gelu, Activation::Silu, Activation::Relu}) {
                Problem p = make_problem(96, 40, {8}, 63);
                p.x[96 * 3 + 50] = bad;
                p.activation = activation;
                const std::vector<float> y = solve(p, form);
                for (int64_t m = 0; m < 8; ++m) {
                    for (int64_t r = 0; r < 40; ++r) {
                        CHECK(std::isnan(y[static_cast<size_t>(m * 40 + r)]) == (m == 3));
                    }
                }
            }
        }
    }
}

TEST_CASE("q8: not less accurate than ggml's own product of Q8_0") {
    constexpr int64_t k = 1280, n = 96, m = 64;
    const std::vector<uint8_t> weights = random_rows(k, n, 71);
    std::vector<float> dequantised(k * n);
    ggml_get_type_traits(GGML_TYPE_Q8_0)->to_float(weights.data(), dequantised.data(), k * n);
    Problem p = make_problem(k, n, {m}, 72);
    p.weights = weights;
    for (int64_t i = 0; i < k * m;
         ++i) {  // a few channels a hundred times as large as the rest, as in transformers
        if (i % k % 307 == 5) p.x[static_cast<size_t>(i)] *= 100.0f;
    }
    Graph g;
    ggml_tensor* w = g.input(GGML_TYPE_Q8_0, {k, n});
    ggml_tensor* x = g.input(GGML_TYPE_F32, {k, m});
    g.allocate();
    ggml_backend_tensor_set(w, weights.data(), 0, weights.size());
    ggml_backend_tensor_set(x, p.x.data(), 0, ggml_nbytes(x));
    const std::vector<float> theirs = g.compute(ggml_mul_mat(g.ctx, w, x), 2);
    for (const Q8Form* form : forms()) {
        const std::vector<float> ours = solve(p, form);
        double our_error = 0.0, their_error = 0.0;
        for (int64_t i = 0; i < m; ++i) {
            for (int64_t r = 0; r < n; ++r) {
                double exact = 0.0;
                for (int64_t j = 0; j < k; ++j)
                    exact += static_cast<double>(dequantised[r * k + j]) * p.x[i * k + j];
                our_error += std::pow(ours[i * n + r] - exact, 2);
                their_error += std::pow(theirs[i * n + r] - exact, 2);
            }
        }
        CHECK(our_error <= 1.02 * their_error);
    }
}

TEST_CASE("q8: packing by ranges equals packing at once, and rows come back exactly") {
    constexpr int64_t k = 96, n = 71;
    const std::vector<int32_t> ids = {70, 0, 15, 16, 33, 70};
    for (Quants quants : kQuants) {
        const std::vector<uint8_t> weights = random_rows(k, n, 81, quants);
        const std::vector<float> expected = values_of_rows(weights, k, n, quants);
        for (const Q8Form* form : forms()) {
            const UseForm use(form);
            const size_t nbytes = q8_packed_nbytes(k, n, quants);
            std::vector<uint8_t> whole(nbytes, 1), parts(nbytes, 2);
            q8_pack(weights.data(), k, n, whole.data(), quants);
            q8_pack(weights.data(), k, n, parts.data(), 48, n, quants);
            q8_pack(weights.data(), k, n, parts.data(), 0, 16, quants);
            q8_pack(weights.data(), k, n, parts.data(), 16, 48, quants);
            CHECK(whole == parts);
            CHECK(whole.size() % 64 == 0);

            Graph g;
            ggml_tensor* w = g.input(GGML_TYPE_I8, {static_cast<int64_t>(whole.size())});
            ggml_tensor* index = g.input(GGML_TYPE_I32, {3, 2});
            g.allocate();
            ggml_backend_tensor_set(w, whole.data(), 0, whole.size());
            ggml_backend_tensor_set(index, ids.data(), 0, ids.size() * 4);
            const std::vector<float> rows = g.compute(q8_get_rows(g.ctx, w, k, n, index, quants), 2);
            for (size_t i = 0; i < ids.size(); ++i) {
                const auto found = rows.begin() + static_cast<int64_t>(i) * k;
                CHECK(std::equal(found, found + k, expected.begin() + ids[i] * k));
            }
        }
    }
}

TEST_CASE("q8: runs under ggml's scheduler, one quantisation shared by two products") {
    const UseForm use(forms()[0]);
    constexpr int64_t k = 64, n = 48, m = 10;
    Problem first = make_problem(k, n, {m}, 91), second = make_problem(k, n, {m}, 92);
    second.x = first.x;
    Graph g;
    ggml_tensor* w1 = g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(k, n))});
    ggml_tensor* w2 = g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(k, n))});
    g.allocate();
    ggml_backend_buffer_set_usage(g.buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    q8_pack(first.weights.data(), k, n, w1->data);
    q8_pack(second.weights.data(), k, n, w2->data);
    ggml_tensor* x = ggml_new_tensor_2d(g.ctx, GGML_TYPE_F32, k, m);
    ggml_set_input(x);
    ggml_tensor* xq = q8_quantize(g.ctx, x);
    ggml_tensor* y = ggml_add(g.ctx, q8_linear(g.ctx, w1, k, n, xq, nullptr, Activation::None, nullptr),
                              q8_linear(g.ctx, w2, k, n, xq, nullptr, Activation::None, nullptr));
    ggml_set_output(y);
    ggml_cgraph* graph = ggml_new_graph(g.ctx);
    ggml_build_forward_expand(graph, y);
    ggml_backend_sched_t sched =
        ggml_backend_sched_new(&g.backend, nullptr, 1, GGML_DEFAULT_GRAPH_SIZE, false, true);
    REQUIRE(ggml_backend_sched_alloc_graph(sched, graph));
    ggml_backend_tensor_set(x, first.x.data(), 0, ggml_nbytes(x));
    REQUIRE(ggml_backend_sched_graph_compute(sched, graph) == GGML_STATUS_SUCCESS);
    std::vector<float> found(n * m);
    ggml_backend_tensor_get(y, found.data(), 0, found.size() * sizeof(float));
    ggml_backend_sched_free(sched);
    const std::vector<float> a = solve(first, forms()[0]), b = solve(second, forms()[0]);
    for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == a[i] + b[i]);
}

TEST_CASE("q8: the form's name, and what RUSTASR_KERNELS accepts") {
    const Q8Form* const best = forms()[0] == &kQ8Portable ? nullptr : forms()[0];
    CHECK(q8_choose_form(nullptr) == best);
    CHECK(q8_choose_form("") == best);
    CHECK(q8_choose_form("portable") == &kQ8Portable);
    CHECK(q8_choose_form("off") == nullptr);
    CHECK_THROWS(q8_choose_form("sse9"), rustasr::OptionError, "sse9");
    const UseForm use(&kQ8Portable);
    CHECK(std::string(q8_form()) == "portable");
    CHECK(q8_supported(32, 1));
    CHECK(!q8_supported(80, 16));
    CHECK(!q8_supported(0, 16));
    CHECK(!q8_supported(32, 0));
}

TEST_CASE("q8: wrong operands are refused when the graph is built") {
    const UseForm use(forms()[0]);
    Graph g;
    ggml_tensor* w = g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(64, 32))});
    ggml_tensor* small = g.input(GGML_TYPE_I8, {100});
    ggml_tensor* x = g.input(GGML_TYPE_F32, {64, 5});
    ggml_tensor* odd = g.input(GGML_TYPE_F32, {80, 5});
    ggml_tensor* half = g.input(GGML_TYPE_F16, {64, 5});
    ggml_tensor* bias = g.input(GGML_TYPE_F32, {31});
    ggml_tensor* residual = g.input(GGML_TYPE_F32, {32, 4});
    g.allocate();
    CHECK_THROWS(q8_quantize(g.ctx, odd), std::invalid_argument, "multiple of 32");
    CHECK_THROWS(q8_quantize(g.ctx, half), std::invalid_argument, "F32");
    CHECK_THROWS(q8_quantize(g.ctx, ggml_transpose(g.ctx, x)), std::invalid_argument, "adjacent");
    ggml_tensor* xq = q8_quantize(g.ctx, x);
    const Activation none = Activation::None;
    CHECK_THROWS(q8_linear(g.ctx, small, 64, 32, xq, nullptr, none, nullptr), std::invalid_argument,
                 "packed");
    CHECK_THROWS(q8_linear(g.ctx, w, 32, 32, xq, nullptr, none, nullptr), std::invalid_argument, "same k");
    CHECK_THROWS(q8_linear(g.ctx, w, 64, 32, xq, bias, none, nullptr), std::invalid_argument, "bias");
    CHECK_THROWS(q8_linear(g.ctx, w, 64, 32, xq, nullptr, none, residual), std::invalid_argument, "residual");
    CHECK_THROWS(q8_linear(g.ctx, w, 64, 32, xq, nullptr, none, nullptr, 0.5f), std::invalid_argument,
                 "scale");
    std::vector<uint8_t> rows = random_rows(64, 32, 1), packed(q8_packed_nbytes(64, 32));
    CHECK_THROWS(q8_pack(rows.data(), 64, 32, packed.data(), 8, 32), std::invalid_argument,
                 "multiples of 16");
    CHECK_THROWS(q8_pack(rows.data(), 64, 32, packed.data(), 0, 20), std::invalid_argument,
                 "multiples of 16");
}
