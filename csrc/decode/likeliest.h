#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rustasr {

/// Indices of the n greatest of the first n_values values, best first; lower indices first among equals.
/// Those of -inf are left out.
std::vector<int32_t> likeliest(const float* values, int64_t n_values, size_t n);

}  // namespace rustasr
