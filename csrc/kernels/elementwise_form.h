// The functions that each instruction set provides: elementwise_<isa>.cpp, one body in elementwise_body.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ggml.h"
#include "kernels/convolution_form.h"

namespace rustasr::kernels {

struct ElementwiseForm {
    const char* name;
    float (*maximum)(const float* x, int64_t n);                // -inf for n = 0
    double (*sum_exp)(const float* x, int64_t n, float shift);  // sum of exp(x - shift)
    int64_t (*argmax)(const float* x, int64_t n);
    void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                       float* y);
    void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* y);
    // y may be x; `turns`: n/2 cosines, n/2 sines
    void (*rms_norm_rotate)(const float* x, const float* weight, const float* turns, int64_t n, float eps,
                            float* y);
    void (*gelu)(const float* x, const float* bias, int64_t n, float* y);
    void (*silu)(const float* x, const float* bias, int64_t n, float* y);
    void (*add_scaled)(const float* x, const float* bias, float scale, const float* residual, int64_t n,
                       float* y);

    // csrc/kernels/convolution.h: rows of the T * B of a result, with scratch aligned to 64
    size_t (*gated_scratch_bytes)(int64_t taps);
    void (*gated_convolution)(const GatedConvolutionArgs& a, int64_t row_begin, int64_t row_end,
                              float* scratch);
    size_t (*strided_scratch_bytes)(const StridedConvolutionArgs& a);
    void (*strided_convolution)(const StridedConvolutionArgs& a, int64_t frame_begin, int64_t frame_end,
                                float* scratch);
};

const ElementwiseForm& elementwise_form_portable();
const ElementwiseForm& elementwise_form_avx2();
const ElementwiseForm& elementwise_form_avx512();
const ElementwiseForm& elementwise_form_neon();

// The forms that this processor can run, the best one last.
std::vector<const ElementwiseForm*> elementwise_usable_forms();

// What runs here; the portable one where the kernels are switched off.
const ElementwiseForm& elementwise_chosen_form();

// layer_norm() and its kin in a given form.
ggml_tensor* layer_norm_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                             ggml_tensor* weight, ggml_tensor* bias, float eps);
ggml_tensor* rms_norm_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                           ggml_tensor* weight, float eps);
ggml_tensor* rms_norm_rotate_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                                  ggml_tensor* const (&weights)[2], int64_t n_first, float eps,
                                  ggml_tensor* turns);
ggml_tensor* gelu_erf_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias);
ggml_tensor* silu_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias);
ggml_tensor* add_scaled_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                             ggml_tensor* bias, float scale, ggml_tensor* residual);
float log_sum_exp_with(const ElementwiseForm& form, const float* x, int64_t n);

}  // namespace rustasr::kernels
