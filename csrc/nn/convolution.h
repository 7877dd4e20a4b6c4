#pragma once
// Convolutions over frames, and over frames and mels. The channels of a place are
// neighbours in memory: x [C, F, T, B]. Padding is kernel/2 zeros on every side.

#include "nn/frame_mask.h"
#include "nn/layers.h"

namespace rustasr {

/// What a convolution of stride 2 leaves of n.
constexpr int64_t halved(int64_t n) { return (n - 1) / 2 + 1; }

/// x [C, F, T, B] with zeros in place of padding. x is overwritten.
ggml_tensor* zero_padding(Graph& graph, ggml_tensor* x, const FrameMask& frames);

/// From one channel: x [F, T, B] → activation(conv(x)) [C, F/2, T/2, B], F/2 and T/2 as `halved`. Stride 2.
class InputConv2d {
   public:
    InputConv2d() = default;
    InputConv2d(Weights weights, int64_t n_out, int kernel);
    /// ReLU or GELU.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, Activation activation) const;
    kernels::ConvolutionWeights weights() const { return {kernel_, bias_}; }

   private:
    ggml_tensor* kernel_ = nullptr;  // [C, mel taps, time taps]
    ggml_tensor* bias_ = nullptr;    // [C]
};

/// Each channel by itself: [C, F, T, B] → [C, F/2, T/2, B]. Stride 2. Padding of x counts as zeros.
class DepthwiseConv2d {
   public:
    DepthwiseConv2d() = default;
    DepthwiseConv2d(Weights weights, int64_t n_channels, int kernel);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, const FrameMask& frames) const;
    /// (*this)(relu(input(x))), where our kernels apply without the tensor between them.
    ggml_tensor* after(const InputConv2d& input, Graph& graph, ggml_tensor* x, const FrameMask& frames) const;

   private:
    ggml_tensor* kernel_ = nullptr;  // [C, mel taps, time taps]
    ggml_tensor* bias_ = nullptr;    // [C]
};

/// Every channel to every other: [C, F, T, B] → [N, F/2, T/2, B]. Stride 2.
class Conv2d {
   public:
    Conv2d() = default;
    Conv2d(Weights weights, int64_t n_in, int64_t n_out, int kernel);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, Activation activation) const;

   private:
    Linear linear_;  // inputs: time taps, then mel taps, then channels
    int kernel_ = 1;
};

/// Every place by itself, a convolution of one tap: [C, F, T, B] → [N, F, T, B].
class PointwiseConv2d {
   public:
    PointwiseConv2d() = default;
    PointwiseConv2d(Weights weights, int64_t n_in, int64_t n_out) : linear_(weights, n_in, n_out) {}
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, Activation activation) const;

   private:
    Linear linear_;
};

/// Each channel by itself over frames: x [C, T, B] → the same shape. Stride 1.
class DepthwiseConv1d {
   public:
    DepthwiseConv1d() = default;
    DepthwiseConv1d(Weights weights, int64_t n_channels, int kernel);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;
    kernels::ConvolutionWeights weights() const { return {kernel_, bias_}; }

   private:
    ggml_tensor* kernel_ = nullptr;  // [C, 1, taps]
    ggml_tensor* bias_ = nullptr;    // [C]
};

/// Sizes of an ExactConv2d; padding leaves as many places as there were, divided by the strides.
struct ConvShape {
    int64_t n_in, n_out;
    int mel_taps = 1, frame_taps = 1;
    int mel_stride = 1, frame_stride = 1;
    int frame_dilation = 1;
};

/// Every channel to every other, in F32 whatever the type of the file: for networks whose convolutions are
/// few weights and many places. [C, F, T, B] -> [N, F', T', B].
class ExactConv2d {
   public:
    ExactConv2d() = default;
    ExactConv2d(Weights weights, const ConvShape& shape, bool with_bias = true);
    /// activation(conv(x) + residual); ReLU or none.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, Activation activation,
                            ggml_tensor* residual = nullptr) const;

   private:
    ConvShape shape_{};
    ggml_tensor* kernel_ = nullptr;  // [N, C, mel taps, frame taps]
    ggml_tensor* bias_ = nullptr;    // [N] or null
};

}  // namespace rustasr
