// What lies between the convolutions of a dense layer of CAM++ (Wang et al. 2023, arXiv:2303.00332), as ggml
// custom operations for the CPU.
#pragma once

#include <cstdint>

#include "ggml.h"

namespace rustasr::kernels {

// The mean over all frames plus the mean over each segment of `segment` frames, of which the last may be
// shorter: x [C, T, B] F32 contiguous -> [C, ceil(T / segment), B].
ggml_tensor* segment_contexts(ggml_context* ctx, ggml_tensor* x, int64_t segment);

// Writes y [n, T, B], each segment times sigmoid(mask [n, S, B]), to the channels from `first` on of buffer
// [N, T, B]; F32 contiguous. Without a mask (nullptr) y as it is. Result: the buffer.
ggml_tensor* append_masked(ggml_context* ctx, ggml_tensor* buffer, ggml_tensor* y, ggml_tensor* mask,
                           int64_t segment, int64_t first);

}  // namespace rustasr::kernels
