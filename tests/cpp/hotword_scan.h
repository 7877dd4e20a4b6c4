#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace rustasr::test {

/// Tokens of the sequence that a left-to-right scan covers with the longest phrase at each place.
inline int covered(const std::vector<int32_t>& sequence, const std::vector<std::vector<int32_t>>& phrases) {
    int total = 0;
    for (size_t at = 0; at < sequence.size();) {
        size_t longest = 0;
        for (const std::vector<int32_t>& phrase : phrases) {
            if (phrase.size() > longest && phrase.size() <= sequence.size() - at &&
                std::equal(phrase.begin(), phrase.end(),
                           sequence.begin() + static_cast<std::ptrdiff_t>(at))) {
                longest = phrase.size();
            }
        }
        total += static_cast<int>(longest);
        at += std::max<size_t>(longest, 1);
    }
    return total;
}

}  // namespace rustasr::test
