#include "nn/transformer.h"

namespace rustasr {

Mlp::Mlp(Weights weights, int64_t d, int64_t d_hidden)
    : up_(weights / 0, d, d_hidden), down_(weights / 2, d_hidden, d) {}

ggml_tensor* Mlp::operator()(Graph& graph, ggml_tensor* normed, ggml_tensor* residual) const {
    return down_(graph, up_(graph, normed, Activation::Gelu), Activation::None, residual);
}

EncoderBlock::EncoderBlock(Weights weights, int64_t d, int64_t n_head, int64_t d_hidden)
    : d_(d),
      n_head_(n_head),
      attn_ln_(weights / "attn_ln", d),
      mlp_ln_(weights / "mlp_ln", d),
      qkv_(weights / "attn" / "qkv", d, 3 * d),
      out_(weights / "attn" / "out", d, d),
      mlp_(weights / "mlp", d, d_hidden) {}

ggml_tensor* EncoderBlock::operator()(Graph& graph, ggml_tensor* x, int64_t n_frames, int64_t batch,
                                      const FrameMask& frames, int window) const {
    ggml_tensor* qkv = qkv_(graph, attn_ln_(graph, x));  // [3d, T·B]
    const auto part = [&](int64_t index) {
        return split_heads(graph, qkv, d_, n_head_, index, n_frames, batch);
    };
    ggml_tensor* y = frames ? attention(graph, part(0), part(1), part(2), frames, window)
                            : attention(graph, part(0), part(1), part(2), nullptr);  // [d, T·B]
    x = out_(graph, y, Activation::None, x);
    return mlp_(graph, mlp_ln_(graph, x), x);
}

CrossDecoderBlock::CrossDecoderBlock(Weights weights, int64_t d, int64_t n_head)
    : d_(d),
      n_head_(n_head),
      attn_ln_(weights / "attn_ln", d),
      cross_attn_ln_(weights / "cross_attn_ln", d),
      mlp_ln_(weights / "mlp_ln", d),
      qkv_(weights / "attn" / "qkv", d, 3 * d),
      out_(weights / "attn" / "out", d, d),
      cross_query_(weights / "cross_attn" / "query", d, d),
      cross_kv_(weights / "cross_attn" / "kv", d, 2 * d),
      cross_out_(weights / "cross_attn" / "out", d, d),
      mlp_(weights / "mlp", d, 4 * d) {}

ggml_tensor* CrossDecoderBlock::self_attention(Graph& graph, ggml_tensor* x, const DecoderContext& c,
                                               int layer) const {
    ggml_context* ctx = graph.ctx();
    const int64_t rows = c.n_tokens * c.batch;
    ggml_tensor* qkv = qkv_(graph, attn_ln_(graph, x));  // [3d, rows]
    const auto part = [&](int64_t index) {
        return ggml_view_2d(ctx, qkv, d_, rows, qkv->nb[1], static_cast<size_t>(index * d_) * sizeof(float));
    };
    // The written cache is what attention reads, so that the write comes first.
    const auto store = [&](ggml_tensor* cache, int64_t index) {
        ggml_tensor* all = ggml_set_rows(ctx, cache, part(index), c.cells);  // [d, n_cells·windows]
        const size_t element = ggml_element_size(all);
        return ggml_view_4d(ctx, all, d_ / n_head_, c.n_kv, n_head_, c.batch, all->nb[1],
                            static_cast<size_t>(d_ / n_head_) * element,
                            all->nb[1] * static_cast<size_t>(c.cache->n_cells()), 0);
    };
    ggml_tensor* keys = store(c.cache->keys(layer), 1);
    ggml_tensor* values = store(c.cache->values(layer), 2);
    return attention(graph, split_heads(graph, qkv, d_, n_head_, 0, c.n_tokens, c.batch), keys, values,
                     c.mask);
}

ggml_tensor* CrossDecoderBlock::operator()(Graph& graph, ggml_tensor* x, const DecoderContext& c, int layer,
                                           ggml_tensor* audio_keys, ggml_tensor* audio_values,
                                           const std::function<void(ggml_tensor*)>& watch_query) const {
    x = out_(graph, self_attention(graph, x, c, layer), Activation::None, x);
    ggml_tensor* query = split_heads(graph, cross_query_(graph, cross_attn_ln_(graph, x)), d_, n_head_, 0,
                                     c.n_tokens, c.batch);
    if (watch_query) watch_query(query);
    x = cross_out_(graph, attention(graph, query, audio_keys, audio_values, nullptr, c.lengths),
                   Activation::None, x);
    return mlp_(graph, mlp_ln_(graph, x), x);
}

CausalBlock::CausalBlock(Weights weights, const CausalDims& c)
    : dims_(c),
      attn_norm_(weights / "attn_norm", c.d, c.norm_eps),
      q_norm_(weights / "attn" / "q_norm", c.d_head, c.norm_eps),
      k_norm_(weights / "attn" / "k_norm", c.d_head, c.norm_eps),
      mlp_norm_(weights / "mlp_norm", c.d, c.norm_eps),
      qkv_(weights / "attn" / "qkv", c.d, (c.n_head + 2 * c.n_kv_head) * c.d_head, false),
      out_(weights / "attn" / "out", c.n_head * c.d_head, c.d, false),
      gate_up_(weights / "mlp" / "gate_up", c.d, 2 * c.d_hidden, false),
      down_(weights / "mlp" / "down", c.d_hidden, c.d, false) {}

ggml_tensor* CausalBlock::attend(Graph& graph, ggml_tensor* x, const CausalContext& c, int layer) const {
    ggml_context* ctx = graph.ctx();
    const int64_t rows = c.n_tokens * c.batch, d_head = dims_.d_head, n_head = dims_.n_head,
                  n_kv_head = dims_.n_kv_head;
    ggml_tensor* qkv = qkv_(graph, attn_norm_(graph, x));  // [(H + 2·Hkv)·D, rows]
    const auto offset = [&](int64_t head) { return static_cast<size_t>(head * d_head) * sizeof(float); };
    const auto rotated = [&](const RmsNorm& norm, int64_t first_head, int64_t n) {  // [D, n, rows]
        ggml_tensor* heads =
            ggml_view_3d(ctx, qkv, d_head, n, rows, offset(1), qkv->nb[1], offset(first_head));
        return ggml_rope_ext_inplace(ctx, norm(graph, heads), c.positions, nullptr, static_cast<int>(d_head),
                                     GGML_ROPE_TYPE_NEOX, 0, dims_.rope_base, 1, 0, 1, 0, 0);
    };
    // The written cache is what attention reads, so that the write comes first.
    const auto store = [&](ggml_tensor* cache, ggml_tensor* values) {   // [D, n_kv, Hkv, B]
        ggml_tensor* all = ggml_set_rows(ctx, cache, values, c.cells);  // [D·Hkv, n_cells·windows]
        const size_t window = all->nb[1] * static_cast<size_t>(c.cache->n_cells());
        return ggml_view_4d(ctx, all, d_head, c.n_kv, n_kv_head, c.batch, all->nb[1],
                            static_cast<size_t>(d_head) * ggml_element_size(all), window,
                            window * static_cast<size_t>(c.first));
    };
    ggml_tensor* q = rotated(q_norm_, 0, n_head);
    ggml_tensor* keys = store(c.cache->keys(layer), ggml_reshape_2d(ctx, rotated(k_norm_, n_head, n_kv_head),
                                                                    d_head * n_kv_head, rows));
    ggml_tensor* values = store(c.cache->values(layer), ggml_view_2d(ctx, qkv, d_head * n_kv_head, rows,
                                                                     qkv->nb[1], offset(n_head + n_kv_head)));
    q = ggml_view_4d(ctx, q, d_head, c.n_tokens, n_head, c.batch, q->nb[2], q->nb[1],
                     q->nb[2] * static_cast<size_t>(c.n_tokens), 0);
    ggml_tensor* y = c.mask ? attention(graph, q, keys, values, c.mask)
                            : causal_attention(graph, q, keys, values, c.offsets);
    return out_(graph, y, Activation::None, x);
}

ggml_tensor* CausalBlock::feed_forward(Graph& graph, ggml_tensor* x) const {
    ggml_tensor* gate_up = gate_up_(graph, mlp_norm_(graph, x));  // [2·d_hidden, rows]
    return down_(graph, ggml_swiglu(graph.ctx(), gate_up), Activation::None, x);
}

}  // namespace rustasr
