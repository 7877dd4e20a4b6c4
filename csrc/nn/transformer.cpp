#include "nn/transformer.h"

#include <cmath>

#include "kernels/elementwise.h"

namespace rustasr {

// Quantised weights gave up more than values in BF16 do. Rounding queries and keys too (Fast) would save a
// tenth of an encoder and costs Whisper base 0.6 % more wrong words in Russian.
AttentionTypes::AttentionTypes(ggml_type weights)
    : precision(ggml_is_quantized(weights) ? kernels::Precision::Mixed : kernels::Precision::F32),
      cache(weights == GGML_TYPE_F32 ? GGML_TYPE_F32 : GGML_TYPE_F16) {}

Mlp::Mlp(Weights weights, int64_t d, int64_t d_hidden, Rounding rounding)
    : up_(weights / 0, d, d_hidden, true, rounding), down_(weights / 2, d_hidden, d, true, rounding) {}

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

// A step waits for its weights, not for the products. Over 86 clips, Whisper tiny.en in Q8_0, the segments'
// mean log probabilities are 3.7e-3 (root mean square) from those of F32 weights with this, 4.3e-3
// without; 2.9e-3 is the weights' own part. The logits' input too would give 3.1e-3 and take a tenth of the
// model's time.
constexpr Rounding kDecoder = Rounding::Twice;

CrossDecoderBlock::CrossDecoderBlock(Weights weights, int64_t d, int64_t n_head)
    : d_(d),
      n_head_(n_head),
      attn_ln_(weights / "attn_ln", d),
      cross_attn_ln_(weights / "cross_attn_ln", d),
      mlp_ln_(weights / "mlp_ln", d),
      qkv_(weights / "attn" / "qkv", d, 3 * d, true, kDecoder),
      out_(weights / "attn" / "out", d, d, true, kDecoder),
      cross_query_(weights / "cross_attn" / "query", d, d, true, kDecoder),
      cross_kv_(weights / "cross_attn" / "kv", d, 2 * d, true, kDecoder),
      cross_out_(weights / "cross_attn" / "out", d, d, true, kDecoder),
      mlp_(weights / "mlp", d, 4 * d, kDecoder) {}

ggml_tensor* CrossDecoderBlock::self_attention(Graph& graph, ggml_tensor* x, const DecoderContext& c,
                                               int layer) const {
    ggml_tensor* qkv = qkv_(graph, attn_ln_(graph, x));  // [3d, n_tokens·B]
    const auto part = [&](int64_t index) {
        return split_heads(graph, qkv, d_, n_head_, index, c.n_tokens, c.batch);
    };
    ggml_tensor* keys = KvCache::store(graph, c.cache->keys(layer), part(1), c.cells, 0, c.n_kv);
    ggml_tensor* values = KvCache::store(graph, c.cache->values(layer), part(2), c.cells, 0, c.n_kv);
    return attention(graph, part(0), keys, values, c.mask);
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

Rotation::Rotation(Graph& graph, const CausalDims& dims, int64_t n_tokens) : base_(dims.rope_base) {
    if (graph.cpu_kernels()) {
        turns_ = graph.input(GGML_TYPE_F32, {dims.d_head, n_tokens});
    } else {
        places_ = graph.input(GGML_TYPE_I32, {n_tokens});
    }
}

// Angles in single precision, as transformers 5.23 has them (Qwen3RotaryEmbedding).
void Rotation::set(const std::vector<int32_t>& places) const {
    if (places_) return write(places_, places.data());
    const auto d = static_cast<size_t>(turns_->ne[0]), half = d / 2;
    std::vector<float> frequencies(half), turns(places.size() * d);
    for (size_t i = 0; i < half; ++i) {
        frequencies[i] = 1.0f / std::pow(base_, static_cast<float>(2 * i) / static_cast<float>(d));
    }
    for (size_t t = 0; t < places.size(); ++t) {
        for (size_t i = 0; i < half; ++i) {
            const float angle = static_cast<float>(places[t]) * frequencies[i];
            turns[t * d + i] = std::cos(angle);
            turns[t * d + half + i] = std::sin(angle);
        }
    }
    write(turns_, turns.data());
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
    ggml_tensor* qkv = ggml_reshape_3d(ctx, qkv_(graph, attn_norm_(graph, x)), d_head, n_head + 2 * n_kv_head,
                                       rows);           // [D, H + 2·Hkv, rows]
    const auto heads = [&](int64_t first, int64_t n) {  // [D, n, rows]
        return ggml_view_3d(ctx, qkv, d_head, n, rows, qkv->nb[1], qkv->nb[2],
                            qkv->nb[1] * static_cast<size_t>(first));
    };
    const auto by_head = [&](ggml_tensor* from, int64_t first, int64_t n) {  // → [D, T, n, B]
        return ggml_view_4d(ctx, from, d_head, c.n_tokens, n, c.batch, from->nb[2], from->nb[1],
                            from->nb[2] * static_cast<size_t>(c.n_tokens),
                            from->nb[1] * static_cast<size_t>(first));
    };
    ggml_tensor *q, *k;
    if (ggml_tensor* turns = c.rotation.turns()) {
        ggml_tensor* both =
            kernels::rms_norm_rotate(ctx, heads(0, n_head + n_kv_head), {q_norm_.weight(), k_norm_.weight()},
                                     n_head, dims_.norm_eps, turns);
        q = by_head(both, 0, n_head);
        k = by_head(both, n_head, n_kv_head);
    } else {
        const auto rotated = [&](const RmsNorm& norm, int64_t first, int64_t n) {
            return by_head(ggml_rope_ext_inplace(ctx, norm(graph, heads(first, n)), c.rotation.places(),
                                                 nullptr, static_cast<int>(d_head), GGML_ROPE_TYPE_NEOX, 0,
                                                 dims_.rope_base, 1, 0, 1, 0, 0),
                           0, n);
        };
        q = rotated(q_norm_, 0, n_head);
        k = rotated(k_norm_, n_head, n_kv_head);
    }
    const auto store = [&](ggml_tensor* cache, ggml_tensor* rows_of_heads) {
        return KvCache::store(graph, cache, rows_of_heads, c.cells, c.first, c.n_kv);
    };
    ggml_tensor* keys = store(c.cache->keys(layer), k);
    ggml_tensor* values = store(c.cache->values(layer), by_head(qkv, n_head + n_kv_head, n_kv_head));
    ggml_tensor* y = c.mask ? attention(graph, q, keys, values, c.mask)
                            : causal_attention(graph, q, keys, values, c.offsets);
    return out_(graph, y, Activation::None, x);
}

ggml_tensor* CausalBlock::feed_forward(Graph& graph, ggml_tensor* x) const {
    ggml_tensor* gate_up = gate_up_(graph, mlp_norm_(graph, x));  // [2·d_hidden, rows]
    return down_(graph, ggml_swiglu(graph.ctx(), gate_up), Activation::None, x);
}

}  // namespace rustasr
