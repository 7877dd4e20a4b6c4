#include "nn/attention.h"

#include <cmath>

#include "kernels/attention.h"

namespace rustasr {

ggml_tensor* split_heads(Graph& graph, ggml_tensor* x, int64_t d, int64_t n_head, int64_t index,
                         int64_t n_frames, int64_t batch) {
    GGML_ASSERT(d % n_head == 0 && x->ne[0] >= (index + 1) * d && ggml_nrows(x) == n_frames * batch);
    const size_t element = ggml_element_size(x), head = static_cast<size_t>(d / n_head) * element;
    return ggml_view_4d(graph.ctx(), x, d / n_head, n_frames, n_head, batch, x->nb[1], head,
                        x->nb[1] * static_cast<size_t>(n_frames), static_cast<size_t>(index * d) * element);
}

namespace {

float score_scale(const ggml_tensor* q) { return 1.0f / std::sqrt(static_cast<float>(q->ne[0])); }

// [D, H, T, B] → [D·H, T·B]
ggml_tensor* join_heads(Graph& graph, ggml_tensor* y) {
    return ggml_reshape_2d(graph.ctx(), y, y->ne[0] * y->ne[1], y->ne[2] * y->ne[3]);
}

// softmax(scores · scale + mask) · v from scores [T, T, H, B]: for what the fused forms do not take.
ggml_tensor* weigh_values(Graph& graph, ggml_tensor* scores, ggml_tensor* v, ggml_tensor* mask, float scale) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* weights = ggml_soft_max_ext(ctx, scores, mask, scale, 0.0f);
    ggml_tensor* columns = ggml_cont(ctx, ggml_transpose(ctx, v));  // [T, D, H, B]
    ggml_tensor* y = ggml_mul_mat(ctx, columns, weights);           // [D, T, H, B]
    return join_heads(graph, ggml_cont(ctx, ggml_permute(ctx, y, 0, 2, 1, 3)));
}

}  // namespace

ggml_tensor* attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                       ggml_tensor* lengths) {
    const float scale = score_scale(q);
    ggml_tensor* y;
    if (graph.cpu_kernels() && kernels::attention_supported(q->ne[0], k->type)) {
        kernels::AttentionOptions options;
        options.mask = mask;
        options.lengths = lengths;
        options.precision = graph.precision();
        y = kernels::attention(graph.ctx(), q, k, v, scale, options);
    } else {
        if (!graph.on_cpu() && k->type == GGML_TYPE_F32) {  // GPUs take F16 keys and values
            k = ggml_cast(graph.ctx(), k, GGML_TYPE_F16);
            v = ggml_cast(graph.ctx(), v, GGML_TYPE_F16);
        }
        y = ggml_flash_attn_ext(graph.ctx(), q, k, v, mask, scale, 0.0f, 0.0f);
    }
    return join_heads(graph, y);
}

bool attention_is_ours(const Backend& backend, int64_t d_head) {
    return backend.on_cpu() && kernels::attention_supported(d_head, GGML_TYPE_F32);
}

ggml_tensor* causal_attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v,
                              ggml_tensor* offsets) {
    kernels::AttentionOptions options;
    options.offsets = offsets;
    options.after = 0;
    options.precision = graph.precision();
    return join_heads(graph, kernels::attention(graph.ctx(), q, k, v, score_scale(q), options));
}

ggml_tensor* attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, const FrameMask& frames,
                       int window) {
    if (graph.cpu_kernels() && kernels::attention_supported(q->ne[0], k->type)) {
        kernels::AttentionOptions options;
        options.lengths = frames.lengths();
        options.window = window;
        options.precision = graph.precision();
        return join_heads(graph, kernels::attention(graph.ctx(), q, k, v, score_scale(q), options));
    }
    GGML_ASSERT(window == 0 || window >= q->ne[1]);
    ggml_tensor* scores = ggml_mul_mat(graph.ctx(), k, q);  // [T, T, H, B]
    return weigh_values(graph, scores, v, frames.keys(), score_scale(q));
}

ggml_tensor* relative_attention(Graph& graph, ggml_tensor* q, ggml_tensor* bias_u, ggml_tensor* bias_v,
                                ggml_tensor* k, ggml_tensor* v, ggml_tensor* positions,
                                const FrameMask& frames) {
    ggml_context* ctx = graph.ctx();
    const int64_t n_frames = q->ne[1];
    GGML_ASSERT(positions->ne[1] == 2 * n_frames - 1);
    if (graph.cpu_kernels() && kernels::attention_supported(q->ne[0], k->type)) {
        kernels::AttentionOptions options;
        options.lengths = frames.lengths();
        options.positions = {positions, bias_u, bias_v};
        options.precision = graph.precision();
        return join_heads(graph, kernels::attention(ctx, q, k, v, score_scale(q), options));
    }
    const auto biased = [&](ggml_tensor* bias) {
        return ggml_add(ctx, q, ggml_reshape_3d(ctx, bias, bias->ne[0], 1, bias->ne[1]));
    };
    ggml_tensor* by_place = ggml_mul_mat(ctx, positions, biased(bias_v));  // [2T − 1, T, H, B]
    // Row i starts at column T − 1 − i: a view whose rows are one value shorter.
    const size_t element = sizeof(float), row = by_place->nb[1] - element;
    ggml_tensor* by_key = ggml_view_4d(ctx, by_place, n_frames, n_frames, by_place->ne[2], by_place->ne[3],
                                       n_frames == 1 ? by_place->nb[1] : row, by_place->nb[2],
                                       by_place->nb[3], static_cast<size_t>(n_frames - 1) * element);
    ggml_tensor* scores =
        ggml_add_inplace(ctx, ggml_mul_mat(ctx, k, biased(bias_u)), by_key);  // [T, T, H, B]
    return weigh_values(graph, scores, v, frames.keys(), score_scale(q));
}

}  // namespace rustasr
