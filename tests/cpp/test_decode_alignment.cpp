#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "check.h"
#include "decode/alignment.h"

namespace {

size_t at(int row, int width, int column) {
    return static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(column);
}

std::vector<float> random_matrix(int n, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = normal(random);
    return values;
}

/// The cheapest path from (i, j) to the end, over all of them.
double cheapest(const std::vector<float>& weights, int n_rows, int n_columns, int i, int j) {
    const double here = -weights[at(i, n_columns, j)];
    if (i == n_rows - 1 && j == n_columns - 1) return here;
    double best = std::numeric_limits<double>::infinity();
    if (i + 1 < n_rows) best = std::min(best, cheapest(weights, n_rows, n_columns, i + 1, j));
    if (j + 1 < n_columns) best = std::min(best, cheapest(weights, n_rows, n_columns, i, j + 1));
    if (i + 1 < n_rows && j + 1 < n_columns)
        best = std::min(best, cheapest(weights, n_rows, n_columns, i + 1, j + 1));
    return here + best;
}

/// Whether some path with these starts has the cheapest cost.
double cost_of(const std::vector<float>& weights, int n_rows, int n_columns,
               const std::vector<int32_t>& starts) {
    // Row r covers its start to the next row's start, or to one before it; take the cheaper at each border.
    std::function<double(int)> from = [&](int row) -> double {
        const int begin = starts[static_cast<size_t>(row)];
        const int next = row + 1 < n_rows ? starts[static_cast<size_t>(row) + 1] : n_columns - 1;
        const auto covered = [&](int last) {
            double sum = 0;
            for (int j = begin; j <= last; ++j) sum -= weights[at(row, n_columns, j)];
            return sum;
        };
        if (row + 1 == n_rows) return covered(n_columns - 1);
        double best = covered(next);
        if (next - 1 >= begin) best = std::min(best, covered(next - 1));
        return best + from(row + 1);
    };
    return from(0);
}

}  // namespace

TEST_CASE("dtw: the path is the cheapest of all, monotone, and begins at the corner") {
    for (uint32_t seed = 0; seed < 60; ++seed) {
        const int n_rows = 1 + static_cast<int>(seed % 5), n_columns = 1 + static_cast<int>(seed % 6);
        const std::vector<float> weights = random_matrix(n_rows * n_columns, seed);
        const std::vector<int32_t> starts = rustasr::dtw_starts(weights.data(), n_rows, n_columns);
        REQUIRE(starts.size() == static_cast<size_t>(n_rows));
        CHECK(starts[0] == 0);
        CHECK(std::is_sorted(starts.begin(), starts.end()));
        CHECK_NEAR(cost_of(weights, n_rows, n_columns, starts), cheapest(weights, n_rows, n_columns, 0, 0),
                   1e-5);
    }
}

TEST_CASE("attention weights: softmax, normalised columns, median of seven, mean over heads") {
    const int n_tokens = 6, n_columns = 20, stride = 23;
    const std::vector<float> first = random_matrix(n_tokens * stride, 1),
                             second = random_matrix(n_tokens * stride, 2);
    const std::vector<float> found =
        rustasr::attention_weights({first.data(), second.data()}, n_tokens, n_columns, stride);
    std::vector<double> expected(at(n_tokens, n_columns, 0), 0.0);
    for (const auto* scores : {&first, &second}) {
        std::vector<double> w(expected.size());
        for (int t = 0; t < n_tokens; ++t) {
            double sum = 0;
            for (int j = 0; j < n_columns; ++j) sum += std::exp((*scores)[at(t, stride, j)]);
            for (int j = 0; j < n_columns; ++j) {
                w[at(t, n_columns, j)] = std::exp((*scores)[at(t, stride, j)]) / sum;
            }
        }
        for (int j = 0; j < n_columns; ++j) {
            double mean = 0, variance = 0;
            for (int t = 0; t < n_tokens; ++t) mean += w[at(t, n_columns, j)] / n_tokens;
            for (int t = 0; t < n_tokens; ++t)
                variance += std::pow(w[at(t, n_columns, j)] - mean, 2) / n_tokens;
            for (int t = 0; t < n_tokens; ++t) {
                double& value = w[at(t, n_columns, j)];
                value = (value - mean) / std::sqrt(variance);
            }
        }
        for (int t = 0; t < n_tokens; ++t) {
            for (int j = 0; j < n_columns; ++j) {
                std::vector<double> around;
                for (int k = j - 3; k <= j + 3; ++k) {
                    const int mirrored = k < 0 ? -k : k >= n_columns ? 2 * (n_columns - 1) - k : k;
                    around.push_back(w[at(t, n_columns, mirrored)]);
                }
                std::sort(around.begin(), around.end());
                expected[at(t, n_columns, j)] += around[3] / 2;
            }
        }
    }
    for (size_t i = 0; i < expected.size(); ++i) CHECK_NEAR(found[i], expected[i], 1e-4);
}
