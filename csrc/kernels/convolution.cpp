#include "kernels/convolution.h"

#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/elementwise_form.h"
#include "kernels/scratch.h"

namespace rustasr::kernels {
namespace {

// At the end of ggml's op_params, behind what ggml keeps there for a custom operation.
struct Params {
    float eps;
    Activation activation;
    int32_t present;  // bit of each operand behind x, in order
};
constexpr size_t kParamsOffset = GGML_MAX_OP_PARAMS - sizeof(Params);

constexpr int kMostOperands = 5;

struct Operands {
    const ggml_tensor* tensors[kMostOperands];
    const float* floats(int i) const {
        return tensors[i] ? static_cast<const float*>(tensors[i]->data) : nullptr;
    }
    const int32_t* integers(int i) const {
        return tensors[i] ? static_cast<const int32_t*>(tensors[i]->data) : nullptr;
    }
};

Params params_of(const ggml_tensor* dst) {
    Params params;
    memcpy(&params, reinterpret_cast<const char*>(dst->op_params) + kParamsOffset, sizeof(params));
    return params;
}

Operands operands_of(const ggml_tensor* dst) {
    Operands operands = {};
    int next = 1;
    for (int i = 0; i < kMostOperands; i++) {
        if (params_of(dst).present & (1 << i)) operands.tensors[i] = dst->src[next++];
    }
    return operands;
}

ggml_tensor* custom(ggml_context* ctx, const ElementwiseForm& form, ggml_custom_op_t compute,
                    const int64_t (&shape)[4], ggml_tensor* x, ggml_tensor* const (&operands)[kMostOperands],
                    float eps, Activation activation) {
    ggml_tensor* args[1 + kMostOperands] = {x};
    Params params = {eps, activation, 0};
    int n = 1;
    for (int i = 0; i < kMostOperands; i++) {
        if (!operands[i]) continue;
        args[n++] = operands[i];
        params.present |= 1 << i;
    }
    ggml_tensor* y = ggml_custom_4d(ctx, GGML_TYPE_F32, shape[0], shape[1], shape[2], shape[3], args, n,
                                    compute, GGML_N_TASKS_MAX, const_cast<ElementwiseForm*>(&form));
    memcpy(reinterpret_cast<char*>(y->op_params) + kParamsOffset, &params, sizeof(params));
    return y;
}

void compute_gated(ggml_tensor* dst, int ith, int nth, void* user_data) {
    const ElementwiseForm& form = *static_cast<const ElementwiseForm*>(user_data);
    const Operands o = operands_of(dst);
    GatedConvolutionArgs a = {};
    a.x = static_cast<const float*>(dst->src[0]->data);
    a.kernel = o.floats(0);
    a.bias = o.floats(1);
    a.norm_weight = o.floats(2);
    a.norm_bias = o.floats(3);
    a.lengths = o.integers(4);
    a.channels = dst->ne[0];
    a.n_frames = dst->ne[1];
    a.taps = o.tensors[0]->ne[2];
    a.eps = params_of(dst).eps;
    a.y = static_cast<float*>(dst->data);
    const int64_t rows = ggml_nrows(dst);
    form.gated_convolution(a, rows * ith / nth, rows * (ith + 1) / nth,
                           reinterpret_cast<float*>(thread_scratch(form.gated_scratch_bytes(a.taps))));
}

void compute_strided(ggml_tensor* dst, int ith, int nth, void* user_data) {
    const ElementwiseForm& form = *static_cast<const ElementwiseForm*>(user_data);
    const Operands o = operands_of(dst);
    const ggml_tensor* x = dst->src[0];
    StridedConvolutionArgs a = {};
    a.x = static_cast<const float*>(x->data);
    a.input_kernel = o.floats(0);
    a.input_bias = o.floats(1);
    a.depthwise_kernel = o.floats(2);
    a.depthwise_bias = o.floats(3);
    a.lengths = o.integers(4);
    a.activation = params_of(dst).activation;
    a.n_mels = a.input_kernel ? x->ne[0] : x->ne[1];
    a.n_frames = a.input_kernel ? x->ne[1] : x->ne[2];
    a.channels = dst->ne[0];
    a.taps = (a.input_kernel ? o.tensors[0] : o.tensors[2])->ne[2];
    a.y = static_cast<float*>(dst->data);
    const int64_t frames = dst->ne[2] * dst->ne[3];
    form.strided_convolution(a, frames * ith / nth, frames * (ith + 1) / nth,
                             reinterpret_cast<float*>(thread_scratch(form.strided_scratch_bytes(a))));
}

std::string shape_of(const ggml_tensor* t) {
    std::string s = std::string(ggml_type_name(t->type)) + " [";
    for (int i = 0; i < 4; i++) s += (i ? ", " : "") + std::to_string(t->ne[i]);
    return s + "]";
}

void require(bool holds, const std::string& expected, const ggml_tensor* t) {
    if (!holds) throw OptionError("convolution: expected " + expected + ", found " + shape_of(t));
}

bool is_plain(const ggml_tensor* t) { return t->type == GGML_TYPE_F32 && ggml_is_contiguous(t); }

void check_vector(const ggml_tensor* t, int64_t n, const char* name) {
    require(is_plain(t) && t->ne[0] == n && ggml_nelements(t) == n,
            std::string(name) + " of " + std::to_string(n) + " values in F32", t);
}

void check_lengths(const ggml_tensor* lengths, int64_t batch) {
    if (!lengths) return;
    require(lengths->type == GGML_TYPE_I32 && ggml_nelements(lengths) == batch && ggml_is_contiguous(lengths),
            "lengths of " + std::to_string(batch) + " sequences in I32", lengths);
}

// mel_taps 0: as many as time taps
void check_weights(const ConvolutionWeights& w, int64_t channels, int64_t mel_taps) {
    const ggml_tensor* k = w.kernel;
    require(is_plain(k) && k->ne[0] == channels && k->ne[1] == (mel_taps ? mel_taps : k->ne[2]) &&
                k->ne[2] % 2 == 1 && k->ne[3] == 1 && (mel_taps || k->ne[2] <= kMostTaps),
            "a kernel [" + std::to_string(channels) + ", mel taps, odd time taps] in F32", k);
    check_vector(w.bias, channels, "a bias");
}

}  // namespace

ggml_tensor* gated_convolution_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                                    const ConvolutionWeights& weights, const ConvolutionNorm& norm,
                                    ggml_tensor* lengths) {
    const int64_t channels = x->ne[0] / 2;
    require(is_plain(x) && x->ne[0] % 2 == 0 && x->ne[3] == 1, "x [2 C, T, B] in F32", x);
    check_weights(weights, channels, 1);
    check_lengths(lengths, x->ne[2]);
    if (norm.weight) {
        check_vector(norm.weight, channels, "a weight of the norm");
        check_vector(norm.bias, channels, "a bias of the norm");
    }
    return custom(ctx, form, compute_gated, {channels, x->ne[1], x->ne[2], 1}, x,
                  {weights.kernel, weights.bias, norm.weight, norm.bias, lengths}, norm.eps,
                  Activation::Silu);
}

ggml_tensor* strided_convolution_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                                      const ConvolutionWeights& input, Activation activation,
                                      const ConvolutionWeights& depthwise, ggml_tensor* lengths) {
    const bool first = input.kernel != nullptr, second = depthwise.kernel != nullptr;
    require(is_plain(x) && (!first || x->ne[3] == 1), first ? "x [F, T, B] in F32" : "x [C, F, T, B] in F32",
            x);
    const int64_t channels = first ? input.kernel->ne[0] : x->ne[0];
    int64_t n_mels = x->ne[first ? 0 : 1], n_frames = x->ne[first ? 1 : 2];
    const int64_t batch = x->ne[first ? 2 : 3];
    if (first) check_weights(input, channels, 0);
    if (first && activation != Activation::Relu && activation != Activation::Gelu)
        throw OptionError("convolution: expected ReLU or GELU behind an input convolution");
    if (second) check_weights(depthwise, channels, 0);
    if (first && second)
        require(ggml_are_same_shape(input.kernel, depthwise.kernel), "kernels of one shape",
                depthwise.kernel);
    check_lengths(lengths, batch);
    for (int stage = 0; stage < first + second; stage++) {
        n_mels = halved(n_mels);
        n_frames = halved(n_frames);
    }
    return custom(ctx, form, compute_strided, {channels, n_mels, n_frames, batch}, x,
                  {input.kernel, input.bias, depthwise.kernel, depthwise.bias, lengths}, 0, activation);
}

ggml_tensor* gated_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& weights,
                               const ConvolutionNorm& norm, ggml_tensor* lengths) {
    return gated_convolution_with(elementwise_chosen_form(), ctx, x, weights, norm, lengths);
}

ggml_tensor* input_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& weights,
                               Activation activation) {
    return strided_convolution_with(elementwise_chosen_form(), ctx, x, weights, activation, {}, nullptr);
}

ggml_tensor* depthwise_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& weights,
                                   ggml_tensor* lengths) {
    return strided_convolution_with(elementwise_chosen_form(), ctx, x, {}, Activation::None, weights,
                                    lengths);
}

ggml_tensor* input_depthwise_convolution(ggml_context* ctx, ggml_tensor* x, const ConvolutionWeights& first,
                                         Activation activation, const ConvolutionWeights& second,
                                         ggml_tensor* lengths) {
    return strided_convolution_with(elementwise_chosen_form(), ctx, x, first, activation, second, lengths);
}

}  // namespace rustasr::kernels
