#include "decode/alignment.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/clones.h"
#include "kernels/elementwise.h"

namespace rustasr {
namespace {

constexpr int64_t kMedianWidth = 7;
constexpr int64_t kMedianPad = kMedianWidth / 2;

void softmax_rows(const float* scores, int64_t n_rows, int64_t n_columns, int64_t row_stride, float* out) {
    for (int64_t row = 0; row < n_rows; ++row) {
        const float* x = scores + row * row_stride;
        float* y = out + row * n_columns;
        const float normalizer = kernels::log_sum_exp(x, n_columns);
        for (int64_t i = 0; i < n_columns; ++i) y[i] = std::exp(x[i] - normalizer);
    }
}

// (w − mean) / std of every column, over the tokens; population standard deviation, as
// torch.std_mean(unbiased=False).
RUSTASR_CLONES void normalize_columns(float* weights, int64_t n_rows, int64_t n_columns, double* sum,
                                      double* square) {
    std::fill(sum, sum + n_columns, 0.0);
    std::fill(square, square + n_columns, 0.0);
    for (int64_t row = 0; row < n_rows; ++row) {
        for (int64_t i = 0; i < n_columns; ++i) sum[i] += weights[row * n_columns + i];
    }
    for (int64_t i = 0; i < n_columns; ++i) sum[i] /= static_cast<double>(n_rows);
    for (int64_t row = 0; row < n_rows; ++row) {
        for (int64_t i = 0; i < n_columns; ++i) {
            const double deviation = weights[row * n_columns + i] - sum[i];
            square[i] += deviation * deviation;
        }
    }
    for (int64_t i = 0; i < n_columns; ++i)
        square[i] = 1.0 / std::sqrt(square[i] / static_cast<double>(n_rows));
    for (int64_t row = 0; row < n_rows; ++row) {
        float* w = weights + row * n_columns;
        for (int64_t i = 0; i < n_columns; ++i) w[i] = static_cast<float>((w[i] - sum[i]) * square[i]);
    }
}

inline void order(float& a, float& b) {
    const float low = std::min(a, b);
    b = std::max(a, b);
    a = low;
}

// Adds the median of the 7 columns around each to `total`. A network of exchanges (Devillard 1998, "Fast
// median search", opt_med7) has no branches, so the compiler computes many columns at once.
RUSTASR_CLONES void add_median(const float* padded, int64_t n_columns, float* total) {
    for (int64_t i = 0; i < n_columns; ++i) {
        const float* w = padded + i;
        float a = w[0], b = w[1], c = w[2], d = w[3], e = w[4], f = w[5], g = w[6];
        order(a, f), order(a, d), order(b, g);
        order(c, e), order(a, b), order(d, f);
        order(c, g), order(c, d), order(d, g);
        order(e, f), order(b, e), order(b, d);
        order(d, e);
        total[i] += d;
    }
}

}  // namespace

std::vector<float> attention_weights(const std::vector<const float*>& scores, int64_t n_tokens,
                                     int64_t n_columns, int64_t row_stride) {
    const auto columns = static_cast<size_t>(n_columns);
    const size_t size = static_cast<size_t>(n_tokens) * columns;
    std::vector<float> mean(size, 0.0f), head(size), padded(columns + 2 * kMedianPad);
    std::vector<double> sum(columns), square(columns);
    for (const float* head_scores : scores) {
        softmax_rows(head_scores, n_tokens, n_columns, row_stride, head.data());
        normalize_columns(head.data(), n_tokens, n_columns, sum.data(), square.data());
        for (int64_t row = 0; row < n_tokens; ++row) {
            const float* w = head.data() + row * n_columns;
            float* total = mean.data() + row * n_columns;
            if (n_columns <= kMedianPad) {
                for (int64_t i = 0; i < n_columns; ++i) total[i] += w[i];
                continue;
            }
            std::copy(w, w + n_columns, padded.begin() + kMedianPad);
            for (int64_t i = 1; i <= kMedianPad; ++i) {  // reflection without the edge
                padded[static_cast<size_t>(kMedianPad - i)] = w[i];
                padded[static_cast<size_t>(kMedianPad + n_columns - 1 + i)] = w[n_columns - 1 - i];
            }
            add_median(padded.data(), n_columns, total);
        }
    }
    for (float& w : mean) w /= static_cast<float>(scores.size());
    return mean;
}

std::vector<int32_t> dtw_starts(const float* weights, int64_t n_rows, int64_t n_columns) {
    enum Step : uint8_t { Diagonal, Up, Left };
    const auto width = static_cast<size_t>(n_columns + 1);
    std::vector<Step> trace(static_cast<size_t>(n_rows + 1) * width, Left);
    std::vector<float> above(width, std::numeric_limits<float>::infinity()), here(width);
    above[0] = 0;
    for (int64_t i = 1; i <= n_rows; ++i) {
        here[0] = std::numeric_limits<float>::infinity();
        Step* steps = &trace[static_cast<size_t>(i) * width];
        steps[0] = Up;
        for (size_t j = 1; j < width; ++j) {
            const float diagonal = above[j - 1], up = above[j], left = here[j - 1];
            float cost = left;
            Step step = Left;
            if (diagonal < up && diagonal < left) {
                cost = diagonal, step = Diagonal;
            } else if (up < diagonal && up < left) {
                cost = up, step = Up;
            }
            here[j] = cost - weights[(i - 1) * n_columns + static_cast<int64_t>(j) - 1];
            steps[j] = step;
        }
        std::swap(above, here);
    }
    std::vector<int32_t> starts(static_cast<size_t>(n_rows), 0);
    int64_t i = n_rows, j = n_columns;
    while (i > 0 || j > 0) {
        if (i > 0 && j > 0) starts[static_cast<size_t>(i - 1)] = static_cast<int32_t>(j - 1);
        const Step step = i == 0   ? Left
                          : j == 0 ? Up
                                   : trace[static_cast<size_t>(i) * width + static_cast<size_t>(j)];
        if (step != Left) --i;
        if (step != Up) --j;
    }
    return starts;
}

}  // namespace rustasr
