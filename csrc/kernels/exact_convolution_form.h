// The functions that each instruction set provides: exact_convolution_<isa>.cpp, one body in
// exact_convolution_body.h.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml.h"
#include "kernels/exact_convolution.h"

namespace rustasr::kernels {

constexpr int64_t kMostTaps = 31;

// Places lie along lines: the mels of a frame, or, where there is one mel, the frames of a sequence.
struct ConvolutionAxis {
    int64_t n_in, n_out, taps, stride, dilation;
};

// The first place that an output reads.
static constexpr int64_t first_place(const ConvolutionAxis& axis, int64_t output) {
    return output * axis.stride - axis.taps / 2 * axis.dilation;
}
// Places that n outputs in a row read.
static constexpr int64_t places_of(const ConvolutionAxis& axis, int64_t n) {
    return (n - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
}

struct ExactConvolutionArgs {
    const float* x;                         // [C, along, across, B]
    const float *kernel, *bias, *residual;  // [N, C, along taps, across taps], [N] or null, as y or null
    int64_t n_in, n_out;
    ConvolutionAxis along, across;
    int64_t chunk;  // outputs of a line that are computed from one copy of what they read
    Activation activation;
    float* y;  // [N, along, across, B]
};

struct ExactForm {
    const char* name;
    // chunks of the lines of a result, with scratch for what one of them reads
    void (*convolution)(const ExactConvolutionArgs& a, int64_t begin, int64_t end, float* scratch);
    void (*scaled_relu)(const float* x, const float* scale, const float* shift, int64_t n, float* y);
};

const ExactForm& exact_form_portable();
const ExactForm& exact_form_avx2();
const ExactForm& exact_form_avx512();
const ExactForm& exact_form_neon();

// The forms that this processor can run, the best one last.
std::vector<const ExactForm*> exact_usable_forms();

// exact_convolution() and scaled_relu() in a given form.
ggml_tensor* exact_convolution_with(const ExactForm& form, ggml_context* ctx, ggml_tensor* x,
                                    const ExactConvolution& weights, ggml_tensor* residual,
                                    Activation activation);
ggml_tensor* scaled_relu_with(const ExactForm& form, ggml_context* ctx, ggml_tensor* x, ggml_tensor* scale,
                              ggml_tensor* shift);

}  // namespace rustasr::kernels
