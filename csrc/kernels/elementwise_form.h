// The functions that each instruction set provides: elementwise_<isa>.cpp, one body in elementwise_body.h.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml.h"

namespace rustasr::kernels {

struct ElementwiseForm {
    const char* name;
    float (*maximum)(const float* x, int64_t n);                // -inf for n = 0
    double (*sum_exp)(const float* x, int64_t n, float shift);  // sum of exp(x - shift)
    int64_t (*argmax)(const float* x, int64_t n);
    void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                       float* y);
    void (*gelu)(const float* x, const float* bias, int64_t n, float* y);
};

const ElementwiseForm& elementwise_form_portable();
const ElementwiseForm& elementwise_form_avx2();
const ElementwiseForm& elementwise_form_avx512();
const ElementwiseForm& elementwise_form_neon();

// The forms that this processor can run, the best one last.
std::vector<const ElementwiseForm*> elementwise_usable_forms();

// layer_norm(), gelu_erf() and log_sum_exp() in a given form.
ggml_tensor* layer_norm_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                             ggml_tensor* weight, ggml_tensor* bias, float eps);
ggml_tensor* gelu_erf_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias);
float log_sum_exp_with(const ElementwiseForm& form, const float* x, int64_t n);

}  // namespace rustasr::kernels
