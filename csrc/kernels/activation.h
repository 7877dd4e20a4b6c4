#pragma once

#include <cstdint>

namespace rustasr::kernels {

enum class Activation : int32_t { None, Gelu /* exact, by erf */, Silu, Relu };

}  // namespace rustasr::kernels
