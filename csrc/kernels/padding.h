// Zeros in place of the padding of a batch of sequences of different lengths, as a ggml custom operation.
#pragma once

#include "ggml.h"

namespace rustasr::kernels {

// x [n, T, B] F32, contiguous; lengths [B] I32. Frames t >= lengths[b] become zeros, in place.
ggml_tensor* zero_padding(ggml_context* ctx, ggml_tensor* x, ggml_tensor* lengths);

}  // namespace rustasr::kernels
