// The pool and the norm between SincNet's convolutions against plain loops.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "kernel_graph.h"
#include "kernels/pooled_norm.h"

using namespace rustasr::kernels;
using rustasr::test::KernelGraph;
using rustasr::test::random_values;

namespace {

struct Case {
    int64_t channels, places, first;  // rows of x before those that count
    int pool;
    bool absolute;
};

std::vector<double> expected(const Case& s, const std::vector<float>& x, const std::vector<float>& weight,
                             const std::vector<float>& bias) {
    const int64_t n = s.places / s.pool;
    std::vector<double> y(static_cast<size_t>(n * s.channels));
    for (int64_t c = 0; c < s.channels; ++c) {
        double mean = 0, variance = 0;
        const auto at = [&](int64_t t) -> double& { return y[static_cast<size_t>(t * s.channels + c)]; };
        for (int64_t t = 0; t < n; ++t) {
            at(t) = -HUGE_VAL;
            for (int64_t i = 0; i < s.pool; ++i) {
                const int64_t row = s.first + t * s.pool + i;
                const double v = double(x[static_cast<size_t>(row * s.channels + c)]);
                at(t) = std::max(at(t), s.absolute ? std::abs(v) : v);
            }
            mean += at(t) / static_cast<double>(n);
        }
        for (int64_t t = 0; t < n; ++t) variance += (at(t) - mean) * (at(t) - mean) / static_cast<double>(n);
        for (int64_t t = 0; t < n; ++t) {
            const auto i = static_cast<size_t>(c);
            const double v =
                (at(t) - mean) / std::sqrt(variance + 1e-5) * double(weight[i]) + double(bias[i]);
            at(t) = v > 0 ? v : 0.01 * v;
        }
    }
    return y;
}

}  // namespace

TEST_CASE("pooled norm: rows of a view, whatever the channels and threads") {
    for (const Case& s : {Case{80, 100, 3, 3, true},
                          {64, 47, 0, 3, false},
                          {5, 9, 1, 3, true},
                          {33, 3, 2, 3, false},
                          {16, 30, 0, 1, false},
                          {1, 8, 0, 4, true}}) {
        for (int threads : {1, 2, 3}) {
            KernelGraph g;
            const auto n_rows = s.first + s.places;
            const auto x = random_values(static_cast<size_t>(n_rows * s.channels), 2, 3, 1);
            const auto weight = random_values(static_cast<size_t>(s.channels), 1, 0.5, 2);
            const auto bias = random_values(static_cast<size_t>(s.channels), 0, 1, 3);
            ggml_tensor *tx = g.floats({s.channels, n_rows}, x), *tw = g.floats({s.channels}, weight),
                        *tb = g.floats({s.channels}, bias);
            const std::vector<float> y = g.run(threads, [&](ggml_context* ctx) {
                ggml_tensor* view = ggml_view_2d(ctx, tx, s.channels, s.places, tx->nb[1],
                                                 static_cast<size_t>(s.first) * tx->nb[1]);
                return pooled_norm(ctx, view, {tw, tb, 1e-5, 0.01f, s.pool, s.absolute});
            });
            const std::vector<double> wanted = expected(s, x, weight, bias);
            REQUIRE(y.size() == wanted.size());
            for (size_t i = 0; i < y.size(); ++i) CHECK_NEAR(y[i], wanted[i], 1e-5);
        }
    }
}

TEST_CASE("pooled norm: a channel of one value is its bias") {
    KernelGraph g;
    ggml_tensor *x = g.floats({2, 6}, std::vector<float>(12, 0.25f)), *w = g.floats({2}, {1, 1}),
                *b = g.floats({2}, {0.5f, -2});
    const auto y =
        g.run(1, [&](ggml_context* ctx) { return pooled_norm(ctx, x, {w, b, 1e-5, 0.01f, 3, true}); });
    for (size_t i = 0; i < y.size(); ++i) CHECK_NEAR(y[i], i % 2 == 0 ? 0.5 : -0.02, 1e-6);
}

TEST_CASE("pooled norm: operands that do not fit are refused") {
    KernelGraph g;
    ggml_tensor *x = g.floats({4, 6}, std::vector<float>(24)), *four = g.floats({4}, std::vector<float>(4)),
                *three = g.floats({3}, std::vector<float>(3));
    g.run(1, [&](ggml_context* ctx) {
        const auto of = [&](ggml_tensor* rows, ggml_tensor* weight, ggml_tensor* bias, int pool) {
            return pooled_norm(ctx, rows, {weight, bias, 1e-5, 0, pool, false});
        };
        CHECK_THROWS(of(x, three, four, 3), rustasr::OptionError, "for every channel");
        CHECK_THROWS(of(x, four, three, 3), rustasr::OptionError, "for every channel");
        CHECK_THROWS(of(x, four, four, 7), rustasr::OptionError, "7 places or more");
        CHECK_THROWS(of(ggml_transpose(ctx, x), four, four, 3), rustasr::OptionError, "adjacent channels");
        return of(x, four, four, 3);
    });
}
