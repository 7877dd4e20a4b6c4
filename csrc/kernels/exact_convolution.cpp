#include "kernels/exact_convolution.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"
#include "kernels/exact_convolution_form.h"
#include "kernels/scratch.h"
#include "kernels/vector_form.h"

namespace rustasr::kernels {
namespace {

// Behind what ggml keeps of a custom operation.
enum Param { kMelStride = 8, kFrameStride, kDilation, kActivation, kHasBias, kHasResidual };

constexpr int64_t kScratchFloats = 16 * 1024;  // 64 KiB: a part of the second-level cache
constexpr int64_t kWidestVector = 16;

const ExactForm& form_of(VectorForm form) {
    switch (form) {
#if RUSTASR_HAVE_AVX2
        case VectorForm::Avx2:
            return exact_form_avx2();
#endif
#if RUSTASR_HAVE_AVX512
        case VectorForm::Avx512:
            return exact_form_avx512();
#endif
#if RUSTASR_HAVE_NEON
        case VectorForm::Neon:
            return exact_form_neon();
#endif
        default:
            return exact_form_portable();
    }
}

const ExactForm& chosen_form() {
    static const ExactForm& form = form_of(chosen_vector_form());
    return form;
}

int64_t left_of(int64_t n, int stride) { return (n - 1) / stride + 1; }

// A whole number of the blocks of every form, of which the scratch holds what they read.
int64_t chunk_of(const ExactConvolutionArgs& a) {
    constexpr int64_t kMultiple = 10;
    const int64_t places = kScratchFloats / (a.across.taps * a.n_in);
    const int64_t outputs = (places - places_of(a.along, 1)) / a.along.stride + 1;
    return std::min(a.along.n_out, std::max(outputs / kMultiple, int64_t{1}) * kMultiple);
}

ExactConvolutionArgs args_of(const ggml_tensor* y) {
    const ggml_tensor *x = y->src[0], *kernel = y->src[1];
    const int32_t* params = y->op_params;
    ExactConvolutionArgs a = {};
    a.x = static_cast<const float*>(x->data);
    a.kernel = static_cast<const float*>(kernel->data);
    int next = 2;
    if (params[kHasBias]) a.bias = static_cast<const float*>(y->src[next++]->data);
    if (params[kHasResidual]) a.residual = static_cast<const float*>(y->src[next]->data);
    a.n_in = x->ne[0];
    a.n_out = y->ne[0];
    a.along = {x->ne[1], y->ne[1], kernel->ne[2], params[kMelStride], 1};
    a.across = {x->ne[2], y->ne[2], kernel->ne[3], params[kFrameStride], params[kDilation]};
    if (x->ne[1] == 1 && kernel->ne[2] == 1) std::swap(a.along, a.across);
    a.chunk = chunk_of(a);
    a.activation = static_cast<Activation>(params[kActivation]);
    a.y = static_cast<float*>(y->data);
    return a;
}

void compute(ggml_tensor* y, int ith, int nth, void* form) {
    const ExactConvolutionArgs a = args_of(y);
    const int64_t n = (a.along.n_out + a.chunk - 1) / a.chunk * a.across.n_out * y->ne[3];
    const auto scratch =
        static_cast<size_t>(a.across.taps * places_of(a.along, a.chunk) * a.n_in) * sizeof(float);
    static_cast<const ExactForm*>(form)->convolution(a, n * ith / nth, n * (ith + 1) / nth,
                                                     reinterpret_cast<float*>(thread_scratch(scratch)));
}

void compute_scaled_relu(ggml_tensor* y, int ith, int nth, void* form) {
    const ggml_tensor *x = y->src[0], *scale = y->src[1], *shift = y->src[2];
    const int64_t rows = ggml_nrows(y), n = y->ne[0];
    for (int64_t row = rows * ith / nth; row < rows * (ith + 1) / nth; ++row) {
        const int64_t i1 = row % y->ne[1], i2 = row / y->ne[1] % y->ne[2], i3 = row / y->ne[1] / y->ne[2];
        const char* from = static_cast<const char*>(x->data) + static_cast<size_t>(i1) * x->nb[1] +
                           static_cast<size_t>(i2) * x->nb[2] + static_cast<size_t>(i3) * x->nb[3];
        static_cast<const ExactForm*>(form)->scaled_relu(
            reinterpret_cast<const float*>(from), static_cast<const float*>(scale->data),
            static_cast<const float*>(shift->data), n, static_cast<float*>(y->data) + row * n);
    }
}

void require(bool holds, const std::string& expected) {
    if (!holds) throw OptionError("exact convolution: expected " + expected);
}

bool is_plain(const ggml_tensor* t) { return t->type == GGML_TYPE_F32 && ggml_is_contiguous(t); }

}  // namespace

std::vector<const ExactForm*> exact_usable_forms() {
    std::vector<const ExactForm*> forms;
    for (VectorForm form : usable_vector_forms()) forms.push_back(&form_of(form));
    return forms;
}

ggml_tensor* exact_convolution_with(const ExactForm& form, ggml_context* ctx, ggml_tensor* x,
                                    const ExactConvolution& weights, ggml_tensor* residual,
                                    Activation activation) {
    const ggml_tensor* kernel = weights.kernel;
    require(is_plain(x), "x in F32, contiguous");
    require(is_plain(kernel) && kernel->ne[1] == x->ne[0] && kernel->ne[2] % 2 == 1 &&
                kernel->ne[3] % 2 == 1 && kernel->ne[2] <= kMostTaps && kernel->ne[3] <= kMostTaps,
            "a kernel [N, " + std::to_string(x->ne[0]) + ", odd taps, odd taps] in F32");
    require(exact_convolution_supported(kernel->ne[0]), "a multiple of 16 output channels");
    require(weights.frame_dilation == 1 || (x->ne[1] == 1 && kernel->ne[2] == 1),
            "a dilation with one mel only");
    require(activation == Activation::None || activation == Activation::Relu, "ReLU or no activation");
    const int64_t shape[4] = {kernel->ne[0], left_of(x->ne[1], weights.mel_stride),
                              left_of(x->ne[2], weights.frame_stride), x->ne[3]};
    ggml_tensor* args[4] = {x, weights.kernel};
    int n = 2;
    if (weights.bias) args[n++] = weights.bias;
    if (residual) args[n++] = residual;
    ggml_tensor* y = ggml_custom_4d(ctx, GGML_TYPE_F32, shape[0], shape[1], shape[2], shape[3], args, n,
                                    compute, GGML_N_TASKS_MAX, const_cast<ExactForm*>(&form));
    require(!weights.bias || (is_plain(weights.bias) && ggml_nelements(weights.bias) == shape[0]),
            "a bias of " + std::to_string(shape[0]) + " values in F32");
    require(!residual || (is_plain(residual) && ggml_are_same_shape(residual, y)),
            "a residual of the result's shape in F32");
    y->op_params[kMelStride] = weights.mel_stride;
    y->op_params[kFrameStride] = weights.frame_stride;
    y->op_params[kDilation] = weights.frame_dilation;
    y->op_params[kActivation] = static_cast<int32_t>(activation);
    y->op_params[kHasBias] = weights.bias != nullptr;
    y->op_params[kHasResidual] = residual != nullptr;
    return y;
}

ggml_tensor* exact_convolution(ggml_context* ctx, ggml_tensor* x, const ExactConvolution& weights,
                               ggml_tensor* residual, Activation activation) {
    return exact_convolution_with(chosen_form(), ctx, x, weights, residual, activation);
}

ggml_tensor* scaled_relu_with(const ExactForm& form, ggml_context* ctx, ggml_tensor* x, ggml_tensor* scale,
                              ggml_tensor* shift) {
    require(x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float), "x in F32 with adjacent elements");
    for (const ggml_tensor* t : {scale, shift})
        require(is_plain(t) && ggml_nelements(t) == x->ne[0], "a scale and a shift for every channel in F32");
    ggml_tensor* args[3] = {x, scale, shift};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], x->ne[1], x->ne[2], x->ne[3], args, 3,
                          compute_scaled_relu, GGML_N_TASKS_MAX, const_cast<ExactForm*>(&form));
}

ggml_tensor* scaled_relu(ggml_context* ctx, ggml_tensor* x, ggml_tensor* scale, ggml_tensor* shift) {
    return scaled_relu_with(chosen_form(), ctx, x, scale, shift);
}

bool exact_convolution_supported(int64_t n_out) { return n_out % kWidestVector == 0; }

}  // namespace rustasr::kernels
