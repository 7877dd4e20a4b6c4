// Zeros around and behind the frames of sequences, as ggml custom operations.
#pragma once

#include "ggml.h"

namespace rustasr::kernels {

// x [n, T, B] F32, contiguous; lengths [B] I32. Frames t >= lengths[b] become zeros, in place.
ggml_tensor* zero_padding(ggml_context* ctx, ggml_tensor* x, ggml_tensor* lengths);

// x [n, T, B] F32, contiguous -> [n, before + T + after, B] with zero frames around each sequence.
ggml_tensor* pad_frames(ggml_context* ctx, ggml_tensor* x, int before, int after);

}  // namespace rustasr::kernels
