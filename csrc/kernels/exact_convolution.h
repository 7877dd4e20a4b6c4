// Convolutions over mels and frames in F32, every channel to every other, and the norm and ReLU before one,
// as ggml custom operations for the CPU. The channels of a place are neighbours in memory, in x and in the
// kernel: x [C, F, T, B], kernel [N, C, mel taps, frame taps]; taps are odd, padding is taps/2 zeros (times
// the dilation) on every side.
#pragma once

#include <cstdint>

#include "ggml.h"
#include "kernels/activation.h"

namespace rustasr::kernels {

struct ExactConvolution {
    ggml_tensor* kernel;
    ggml_tensor* bias;  // [N] or nullptr
    int mel_stride, frame_stride, frame_dilation;
};

// activation(conv(x) + bias + residual), ReLU or none -> [N, (F - 1) / mel_stride + 1, (T - 1) / frame_stride
// + 1, B]. x F32, contiguous; residual of the result's shape, or nullptr. A dilation goes with one mel and
// one mel tap.
ggml_tensor* exact_convolution(ggml_context* ctx, ggml_tensor* x, const ExactConvolution& weights,
                               ggml_tensor* residual, Activation activation);

// max(scale * x + shift, 0). x [n, ...] F32 with adjacent elements in a row; scale and shift [n]. Result
// contiguous.
ggml_tensor* scaled_relu(ggml_context* ctx, ggml_tensor* x, ggml_tensor* scale, ggml_tensor* shift);

// Whether n_out channels fill the vectors of every form.
bool exact_convolution_supported(int64_t n_out);

}  // namespace rustasr::kernels
