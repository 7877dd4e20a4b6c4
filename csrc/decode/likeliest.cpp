#include "decode/likeliest.h"

#include <algorithm>
#include <limits>

namespace rustasr {

std::vector<int32_t> likeliest(const float* values, int64_t n_values, size_t n) {
    std::vector<int32_t> best;
    const auto better = [values](int32_t a, int32_t b) {
        return values[a] > values[b] || (values[a] == values[b] && a < b);
    };
    for (int32_t i = 0; i < static_cast<int32_t>(n_values); ++i) {
        if (values[i] == -std::numeric_limits<float>::infinity()) continue;
        if (best.size() == n && !better(i, best.back())) continue;
        best.insert(std::upper_bound(best.begin(), best.end(), i, better), i);
        if (best.size() > n) best.pop_back();
    }
    return best;
}

}  // namespace rustasr
