#include "nn/layers.h"

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/padding.h"

namespace rustasr {
ggml_tensor* activate(Graph& graph, ggml_tensor* x, ggml_tensor* bias, Activation activation) {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels() && activation == Activation::Gelu) return kernels::gelu_erf(ctx, x, bias);
    if (graph.cpu_kernels() && activation == Activation::Silu) return kernels::silu(ctx, x, bias);
    if (bias) x = ggml_add_inplace(ctx, x, bias);
    switch (activation) {
        case Activation::Gelu:
            return ggml_gelu_erf(ctx, x);
        case Activation::Silu:
            return ggml_silu(ctx, x);
        case Activation::Relu:
            return ggml_relu(ctx, x);
        case Activation::None:
            break;
    }
    return x;
}

ggml_tensor* pad_frames(Graph& graph, ggml_tensor* x, int before, int after) {
    if (graph.cpu_kernels()) return kernels::pad_frames(graph.ctx(), x, before, after);
    return ggml_pad_ext(graph.ctx(), x, 0, 0, before, after, 0, 0, 0, 0);
}

Linear::Linear(Weights weights, int64_t k, int64_t n, bool with_bias, Rounding rounding)
    : weight_(weights.matmul("weight", k, n)),
      bias_(with_bias ? weights.get_f32("bias", {n}) : nullptr),
      rounding_(rounding) {}

Linear Linear::tied(Weights weights, const std::string& name, int64_t k, int64_t n) {
    Linear linear;
    linear.weight_ = weights.matmul(name, k, n);
    return linear;
}

ggml_tensor* Linear::operator()(Graph& graph, LinearInput& x, Activation activation, ggml_tensor* residual,
                                float scale) const {
    ggml_context* ctx = graph.ctx();
    if (weight_.packed) {
        if (!x.quantized) x.quantized = kernels::q8_quantize(ctx, x.plain, rounding_);
        return kernels::q8_linear(ctx, weight_.tensor, weight_.k, weight_.n, x.quantized, bias_, activation,
                                  residual, scale, *weight_.packed);
    }
    ggml_tensor* rows = x.plain;
    // One matrix where that is free: a large product is faster than many small ones.
    const bool flat = ggml_is_contiguous(rows) && rows->ne[2] * rows->ne[3] > 1;
    if (flat) rows = ggml_reshape_2d(ctx, rows, weight_.k, ggml_nrows(rows));
    ggml_tensor* y = ggml_mul_mat(ctx, weight_.tensor, rows);
    if (flat) y = ggml_reshape_4d(ctx, y, weight_.n, x.plain->ne[1], x.plain->ne[2], x.plain->ne[3]);
    if (graph.cpu_kernels() && residual && activation == Activation::None)
        return kernels::add_scaled(ctx, y, bias_, scale, residual);
    y = activate(graph, y, bias_, activation);
    if (scale != 1.0f) y = ggml_scale_inplace(ctx, y, scale);
    return residual ? ggml_add_inplace(ctx, y, residual) : y;
}

LayerNorm::LayerNorm(Weights weights, int64_t d, float eps)
    : weight_(weights.get_f32("weight", {d})), bias_(weights.get_f32("bias", {d})), eps_(eps) {}

ggml_tensor* LayerNorm::operator()(Graph& graph, ggml_tensor* x) const {
    if (graph.cpu_kernels()) return kernels::layer_norm(graph.ctx(), x, weight_, bias_, eps_);
    ggml_context* ctx = graph.ctx();
    return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, eps_), weight_), bias_);
}

ggml_tensor* RmsNorm::operator()(Graph& graph, ggml_tensor* x) const {
    if (graph.cpu_kernels()) return kernels::rms_norm(graph.ctx(), x, weight_, eps_);
    return ggml_mul_inplace(graph.ctx(), ggml_rms_norm(graph.ctx(), x, eps_), weight_);
}

Embedding::Embedding(Weights weights, int64_t d, int64_t n) : table_{weights.get("weight", {d, n}), d, n} {}

Embedding::Embedding(Weights weights, int64_t d, int64_t n, const Linear& output)
    : table_(output.weight().packed ? output.weight() : Embedding(weights, d, n).table_) {}

ggml_tensor* Embedding::operator()(Graph& graph, ggml_tensor* ids) const {
    if (table_.packed) {
        return kernels::q8_get_rows(graph.ctx(), table_.tensor, table_.k, table_.n, ids, *table_.packed);
    }
    return ggml_get_rows(graph.ctx(), table_.tensor, ids);
}

Conv1d::Conv1d(Weights weights, int64_t n_in, int64_t n_out, int kernel, int stride)
    : linear_(weights, kernel * n_in, n_out), n_in_(n_in), kernel_(kernel), stride_(stride) {}

ggml_tensor* Conv1d::operator()(Graph& graph, ggml_tensor* padded, Activation activation) const {
    GGML_ASSERT(padded->ne[0] == n_in_ && ggml_is_contiguous(padded));
    const int64_t n_frames = (padded->ne[1] - kernel_) / stride_ + 1, batch = padded->ne[2];
    ggml_tensor* taps = ggml_view_3d(graph.ctx(), padded, n_in_, n_frames, batch,
                                     padded->nb[1] * static_cast<size_t>(stride_), padded->nb[2], 0);
    // ggml refuses to make a view of more elements than its source has, which rows that overlap are.
    taps->ne[0] = kernel_ * n_in_;
    // Rows that overlap are fine for the CPU; elsewhere they are laid out once.
    const bool many_short = batch > 1 && n_frames < 16;
    if (!graph.cpu_kernels() || many_short) taps = ggml_cont(graph.ctx(), taps);
    if (!many_short) return linear_(graph, taps, activation);
    ggml_tensor* y =
        linear_(graph, ggml_reshape_2d(graph.ctx(), taps, taps->ne[0], n_frames * batch), activation);
    return ggml_reshape_3d(graph.ctx(), y, y->ne[0], n_frames, batch);
}

}  // namespace rustasr
