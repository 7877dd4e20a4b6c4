// What convolution.cpp hands to a form (see elementwise_form.h for the table).
#pragma once

#include <cstdint>

#include "ggml.h"
#include "kernels/convolution.h"

namespace rustasr::kernels {

struct ElementwiseForm;

constexpr int64_t kMostTaps = 31;  // of a convolution over mels and frames

// What a convolution of stride 2 leaves of n.
static constexpr int64_t halved(int64_t n) { return (n - 1) / 2 + 1; }

struct GatedConvolutionArgs {
    const float* x;  // [2 C, T, B]
    const float *kernel, *bias, *norm_weight, *norm_bias;
    const int32_t* lengths;
    int64_t channels, n_frames, taps;
    float eps;
    float* y;  // [C, T, B]
};

// A convolution of stride 2, or two of them: from one channel (`input`), then each channel by itself
// (`depthwise`); a null kernel leaves one out.
struct StridedConvolutionArgs {
    const float* x;  // [F, T, B] with an input convolution, else [C, F, T, B]
    int64_t n_mels, n_frames, channels, taps;
    const float *input_kernel, *input_bias;
    Activation activation;  // of the input convolution
    const float *depthwise_kernel, *depthwise_bias;
    const int32_t* lengths;  // of the frames that the depthwise convolution reads
    float* y;
};

// gated_convolution() and its kin in a given form.
ggml_tensor* gated_convolution_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                                    const ConvolutionWeights& weights, const ConvolutionNorm& norm,
                                    ggml_tensor* lengths);
// With input.kernel, depthwise.kernel or both.
ggml_tensor* strided_convolution_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                                      const ConvolutionWeights& input, Activation activation,
                                      const ConvolutionWeights& depthwise, ggml_tensor* lengths);

}  // namespace rustasr::kernels
