// What lies between the convolutions of SincNet (Ravanelli & Bengio 2018, arXiv:1808.00158), as a ggml custom
// operation for the CPU.
#pragma once

#include "ggml.h"

namespace rustasr::kernels {

struct PooledNormArgs {
    ggml_tensor *weight, *bias;  // [C] F32
    double eps;
    float leaky_slope;
    int pool;       // places of which the greatest is taken
    bool absolute;  // the greatest |x|
};

// y = the greatest of `pool` places each, less the mean of its channel over time, over its deviation, times
// weight, plus bias; then leaky ReLU. x [C, T, 1, 1] F32 with adjacent channels, rows at any distance ->
// [C, T / pool], contiguous; what is left over at the end is not looked at.
ggml_tensor* pooled_norm(ggml_context* ctx, ggml_tensor* x, const PooledNormArgs& args);

}  // namespace rustasr::kernels
