// The convolutions of a conformer for the CPU, as ggml custom operations of one pass over memory each. The
// channels of a place are neighbours in memory; kernels hold the channels of a tap as neighbours too. Padding
// is (taps - 1) / 2 zeros on every side, taps is odd.
#pragma once

#include <cstdint>

#include "ggml.h"
#include "kernels/activation.h"

namespace rustasr::kernels {

// A kernel [C, mel taps, time taps] and a bias [C], F32 and contiguous.
struct ConvolutionWeights {
    ggml_tensor *kernel, *bias;
};

// LayerNorm over the channels: weight and bias [C] F32; none where weight is nullptr.
struct ConvolutionNorm {
    ggml_tensor *weight = nullptr, *bias = nullptr;
    float eps = 0;
};

// y = silu(norm(bias + sum_k kernel[:, 0, k] * g[t + k - padding])), g[t] = a[t] * sigmoid(b[t]):
// what lies between the pointwise convolutions of a conformer's convolution module (Gulati et al. 2020,
// arXiv:2005.08100, figure 2).
// x        [2 C, T, B] F32 contiguous: a, then b
// lengths  nullptr, or I32 [B]: g is zero from frame lengths[b] on
// result   [C, T, B]
ggml_tensor* gated_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& weights,
                               const ConvolutionNorm& norm, ggml_tensor* lengths);

// Convolutions over mels and frames with stride 2, which leave (n - 1) / 2 + 1 of n; as many mel taps as time
// taps.
//
// activation(bias + conv(x)) from one channel, ReLU or GELU: x [F, T, B] F32 contiguous -> [C, F', T', B].
ggml_tensor* input_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& weights,
                               Activation activation);

// Each channel by itself: x [C, F, T, B] F32 contiguous -> [C, F', T', B]. Frames of x from lengths[b] on
// count as zeros (nullptr: all count).
ggml_tensor* depthwise_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& weights,
                                   ggml_tensor* lengths);

// depthwise_convolution(input_convolution(x, first, activation), second, lengths) -> [C, F'', T'', B] without
// the tensor between them, which is the largest of an encoder.
ggml_tensor* input_depthwise_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& first,
                                         Activation activation, const ConvolutionWeights& second,
                                         ggml_tensor* lengths);

}  // namespace rustasr::kernels
