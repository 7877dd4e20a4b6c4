#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/elementwise_form.h"
#include "kernels/vector_form.h"

namespace rustasr::kernels {
namespace {

const ElementwiseForm& form_of(VectorForm form) {
    switch (form) {
#if RUSTASR_HAVE_AVX2
        case VectorForm::Avx2:
            return elementwise_form_avx2();
#endif
#if RUSTASR_HAVE_AVX512
        case VectorForm::Avx512:
            return elementwise_form_avx512();
#endif
#if RUSTASR_HAVE_NEON
        case VectorForm::Neon:
            return elementwise_form_neon();
#endif
        default:
            return elementwise_form_portable();
    }
}

// At the end of ggml's op_params, behind what ggml keeps there for a custom operation.
constexpr size_t kParamOffset = GGML_MAX_OP_PARAMS - sizeof(float);

struct RowRange {
    int64_t begin, end;
};

RowRange share_of(int64_t n, int ith, int nth) { return {n * ith / nth, n * (ith + 1) / nth}; }

const float* row_at(const ggml_tensor* t, int64_t row) {
    const int64_t i1 = row % t->ne[1], i2 = row / t->ne[1] % t->ne[2], i3 = row / t->ne[1] / t->ne[2];
    return reinterpret_cast<const float*>(
        static_cast<const char*>(t->data) + static_cast<size_t>(i1) * t->nb[1] +
        static_cast<size_t>(i2) * t->nb[2] + static_cast<size_t>(i3) * t->nb[3]);
}

const float* data_of(const ggml_tensor* t) { return t ? static_cast<const float*>(t->data) : nullptr; }

float float_param(const ggml_tensor* t) {
    float value;
    memcpy(&value, reinterpret_cast<const char*>(t->op_params) + kParamOffset, sizeof(value));
    return value;
}

void set_float_param(ggml_tensor* t, float value) {
    memcpy(reinterpret_cast<char*>(t->op_params) + kParamOffset, &value, sizeof(value));
}

void compute_layer_norm(ggml_tensor* dst, int ith, int nth, void* form) {
    const RowRange rows = share_of(ggml_nrows(dst), ith, nth);
    const int64_t n = dst->ne[0];
    for (int64_t r = rows.begin; r < rows.end; r++) {
        static_cast<const ElementwiseForm*>(form)->layer_norm(row_at(dst->src[0], r), data_of(dst->src[1]),
                                                              data_of(dst->src[2]), n, float_param(dst),
                                                              static_cast<float*>(dst->data) + r * n);
    }
}

void compute_rms_norm(ggml_tensor* dst, int ith, int nth, void* form) {
    const RowRange rows = share_of(ggml_nrows(dst), ith, nth);
    const int64_t n = dst->ne[0];
    for (int64_t r = rows.begin; r < rows.end; r++) {
        static_cast<const ElementwiseForm*>(form)->rms_norm(row_at(dst->src[0], r), data_of(dst->src[1]), n,
                                                            float_param(dst),
                                                            static_cast<float*>(dst->data) + r * n);
    }
}

constexpr int kParamFirst = 8;  // behind what ggml keeps of a custom operation

void compute_rms_norm_rotate(ggml_tensor* dst, int ith, int nth, void* form) {
    const RowRange rows = share_of(ggml_nrows(dst), ith, nth);
    const int64_t n = dst->ne[0], n_heads = dst->ne[1];
    for (int64_t r = rows.begin; r < rows.end; r++) {
        const int64_t head = r % n_heads, token = r / n_heads;
        auto* y = const_cast<float*>(row_at(dst, r));
        static_cast<const ElementwiseForm*>(form)->rms_norm_rotate(
            y, data_of(dst->src[head < dst->op_params[kParamFirst] ? 1 : 2]),
            data_of(dst->src[3]) + token * n, n, float_param(dst), y);
    }
}

// Calls work(row, first, count) for pieces of rows, so that one long row is shared by the threads too.
template <class Work>
void for_pieces(const ggml_tensor* dst, int ith, int nth, const Work& work) {
    constexpr int64_t kPiece = 1024;
    const int64_t n = dst->ne[0], pieces = (n + kPiece - 1) / kPiece;
    const RowRange range = share_of(ggml_nrows(dst) * pieces, ith, nth);
    for (int64_t i = range.begin; i < range.end; i++) {
        const int64_t begin = i % pieces * kPiece;
        work(i / pieces, begin, std::min(kPiece, n - begin));
    }
}

void compute_activation(ggml_tensor* dst, int ith, int nth, decltype(ElementwiseForm::gelu) function) {
    for_pieces(dst, ith, nth, [&](int64_t row, int64_t begin, int64_t count) {
        const float* bias = data_of(dst->src[1]);
        function(row_at(dst->src[0], row) + begin, bias ? bias + begin : nullptr, count,
                 static_cast<float*>(dst->data) + row * dst->ne[0] + begin);
    });
}

void compute_gelu(ggml_tensor* dst, int ith, int nth, void* form) {
    compute_activation(dst, ith, nth, static_cast<const ElementwiseForm*>(form)->gelu);
}

void compute_silu(ggml_tensor* dst, int ith, int nth, void* form) {
    compute_activation(dst, ith, nth, static_cast<const ElementwiseForm*>(form)->silu);
}

void compute_add_scaled(ggml_tensor* dst, int ith, int nth, void* form) {
    const float scale = float_param(dst);
    for_pieces(dst, ith, nth, [&](int64_t row, int64_t begin, int64_t count) {
        const float* bias = data_of(dst->src[2]);
        static_cast<const ElementwiseForm*>(form)->add_scaled(
            row_at(dst->src[0], row) + begin, bias ? bias + begin : nullptr, scale,
            row_at(dst->src[1], row) + begin, count,
            static_cast<float*>(dst->data) + row * dst->ne[0] + begin);
    });
}

bool is_vector_of(const ggml_tensor* t, int64_t n) {
    return t->type == GGML_TYPE_F32 && t->ne[0] == n && ggml_nelements(t) == n && t->nb[0] == sizeof(float);
}

void check(const char* op, const ggml_tensor* x, const ggml_tensor* weight, const ggml_tensor* bias) {
    if (x->type != GGML_TYPE_F32 || x->nb[0] != sizeof(float)) {
        throw OptionError(std::string(op) + ": expected x in F32 with adjacent elements, found " +
                          ggml_type_name(x->type));
    }
    for (const ggml_tensor* t : {weight, bias}) {
        if (t && !is_vector_of(t, x->ne[0])) {
            throw OptionError(std::string(op) + ": expected a weight and bias of " +
                              std::to_string(x->ne[0]) + " elements in F32, found " +
                              std::to_string(ggml_nelements(t)) + " in " + ggml_type_name(t->type));
        }
    }
}

ggml_tensor* custom_like(ggml_context* ctx, ggml_tensor* x, ggml_tensor** args, int n_args,
                         ggml_custom_op_t compute, const ElementwiseForm& form) {
    return ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], x->ne[1], x->ne[2], x->ne[3], args, n_args, compute,
                          GGML_N_TASKS_MAX, const_cast<ElementwiseForm*>(&form));
}

}  // namespace

const ElementwiseForm& elementwise_chosen_form() {
    static const ElementwiseForm& form = form_of(chosen_vector_form());
    return form;
}

std::vector<const ElementwiseForm*> elementwise_usable_forms() {
    std::vector<const ElementwiseForm*> forms;
    for (VectorForm form : usable_vector_forms()) forms.push_back(&form_of(form));
    return forms;
}

ggml_tensor* layer_norm_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                             ggml_tensor* weight, ggml_tensor* bias, float eps) {
    check("layer_norm", x, weight, bias);
    ggml_tensor* args[3] = {x, weight, bias};
    ggml_tensor* y = custom_like(ctx, x, args, bias ? 3 : 2, compute_layer_norm, form);
    set_float_param(y, eps);
    return y;
}

ggml_tensor* rms_norm_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                           ggml_tensor* weight, float eps) {
    check("rms_norm", x, weight, nullptr);
    ggml_tensor* args[2] = {x, weight};
    ggml_tensor* y = custom_like(ctx, x, args, 2, compute_rms_norm, form);
    set_float_param(y, eps);
    return y;
}

ggml_tensor* rms_norm_rotate_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                                  ggml_tensor* const (&weights)[2], int64_t n_first, float eps,
                                  ggml_tensor* turns) {
    check("rms_norm_rotate", x, weights[0], weights[1]);
    if (x->ne[0] % 2 || x->ne[3] != 1 || turns->type != GGML_TYPE_F32 || !ggml_is_contiguous(turns) ||
        turns->ne[0] != x->ne[0] || turns->ne[1] != x->ne[2]) {
        throw OptionError("rms_norm_rotate: expected heads of an even size and as many angles for each of " +
                          std::to_string(x->ne[2]) + " tokens, found " + std::to_string(x->ne[0]) + " and " +
                          std::to_string(ggml_nelements(turns)));
    }
    ggml_tensor* args[3] = {weights[0], weights[1], turns};
    ggml_tensor* y = ggml_custom_inplace(ctx, x, args, 3, compute_rms_norm_rotate, GGML_N_TASKS_MAX,
                                         const_cast<ElementwiseForm*>(&form));
    y->op_params[kParamFirst] = static_cast<int32_t>(n_first);
    set_float_param(y, eps);
    return y;
}

ggml_tensor* gelu_erf_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                           ggml_tensor* bias) {
    check("gelu_erf", x, nullptr, bias);
    ggml_tensor* args[2] = {x, bias};
    return custom_like(ctx, x, args, bias ? 2 : 1, compute_gelu, form);
}

ggml_tensor* silu_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias) {
    check("silu", x, nullptr, bias);
    ggml_tensor* args[2] = {x, bias};
    return custom_like(ctx, x, args, bias ? 2 : 1, compute_silu, form);
}

ggml_tensor* add_scaled_with(const ElementwiseForm& form, ggml_context* ctx, ggml_tensor* x,
                             ggml_tensor* bias, float scale, ggml_tensor* residual) {
    check("add_scaled", x, nullptr, bias);
    check("add_scaled", residual, nullptr, nullptr);
    if (!ggml_are_same_shape(x, residual)) {
        throw OptionError("add_scaled: expected a residual of x's shape, found " +
                          std::to_string(ggml_nelements(residual)) + " elements for " +
                          std::to_string(ggml_nelements(x)));
    }
    ggml_tensor* args[3] = {x, residual, bias};
    ggml_tensor* y = custom_like(ctx, x, args, bias ? 3 : 2, compute_add_scaled, form);
    set_float_param(y, scale);
    return y;
}

float log_sum_exp_with(const ElementwiseForm& form, const float* x, int64_t n) {
    const float shift = form.maximum(x, n);
    if (shift == -HUGE_VALF) return shift;
    return static_cast<float>(static_cast<double>(shift) + std::log(form.sum_exp(x, n, shift)));
}

float log_sum_exp(const float* x, int64_t n) { return log_sum_exp_with(elementwise_chosen_form(), x, n); }

int64_t argmax(const float* x, int64_t n) { return elementwise_chosen_form().argmax(x, n); }

ggml_tensor* layer_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, ggml_tensor* bias,
                        float eps) {
    return layer_norm_with(elementwise_chosen_form(), ctx, x, weight, bias, eps);
}

ggml_tensor* rms_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, float eps) {
    return rms_norm_with(elementwise_chosen_form(), ctx, x, weight, eps);
}

ggml_tensor* rms_norm_rotate(ggml_context* ctx, ggml_tensor* x, ggml_tensor* const (&weights)[2],
                             int64_t n_first, float eps, ggml_tensor* turns) {
    return rms_norm_rotate_with(elementwise_chosen_form(), ctx, x, weights, n_first, eps, turns);
}

ggml_tensor* gelu_erf(ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias) {
    return gelu_erf_with(elementwise_chosen_form(), ctx, x, bias);
}

ggml_tensor* silu(ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias) {
    return silu_with(elementwise_chosen_form(), ctx, x, bias);
}

ggml_tensor* add_scaled(ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias, float scale,
                        ggml_tensor* residual) {
    return add_scaled_with(elementwise_chosen_form(), ctx, x, bias, scale, residual);
}

bool elementwise_supported() { return chosen_vector_form() != VectorForm::Off; }

}  // namespace rustasr::kernels
