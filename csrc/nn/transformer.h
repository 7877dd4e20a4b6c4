#pragma once
// The pre-norm transformer blocks. Shapes: x [d, T·B], rows of one sequence after those of the other.

#include <functional>

#include "nn/attention.h"
#include "nn/kv_cache.h"
#include "nn/layers.h"

namespace rustasr {

/// How a transformer attends on the CPU, and what its cache holds, by the type of its weights.
struct AttentionTypes {
    explicit AttentionTypes(ggml_type weights);
    kernels::Precision precision;
    ggml_type cache;
};

/// Two Linears with a GELU between them, and the residual.
class Mlp {
   public:
    Mlp(Weights weights, int64_t d, int64_t d_hidden, Rounding rounding = Rounding::Once);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* normed, ggml_tensor* residual) const;

   private:
    Linear up_, down_;
};

/// x += attention(norm(x)); x += mlp(norm(x)). The encoders of Whisper and Qwen3-ASR.
class EncoderBlock {
   public:
    EncoderBlock(Weights weights, int64_t d, int64_t n_head, int64_t d_hidden);
    /// Frames see those of their window of `window` frames only; 0: all.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, int64_t n_frames, int64_t batch,
                            const FrameMask& frames = {}, int window = 0) const;

   private:
    int64_t d_, n_head_;
    LayerNorm attn_ln_, mlp_ln_;
    Linear qkv_, out_;
    Mlp mlp_;
};

/// What a decoder block reads besides its input.
struct DecoderContext {
    int64_t n_tokens;  // new tokens of each sequence
    int64_t batch;     // sequences
    int64_t n_kv;      // cells of the cache that are looked at
    KvCache* cache;
    ggml_tensor* cells;    // I64 [n_tokens, 1, batch]: where the new keys and values go
    ggml_tensor* mask;     // F16 [n_kv, n_tokens, 1, batch]
    ggml_tensor* lengths;  // I32 [batch] of audio positions to look at (0: the sequence is done)
};

/// x += self-attention; x += attention to the audio; x += mlp. Whisper's decoder.
class CrossDecoderBlock {
   public:
    CrossDecoderBlock(Weights weights, int64_t d, int64_t n_head);

    /// audio [d, T·B] → its keys and values for this block, [2d, T·B].
    ggml_tensor* audio_kv(Graph& graph, LinearInput& audio) const { return cross_kv_(graph, audio); }
    /// audio_keys, audio_values: [d/n_head, T, n_head, batch]. `watch_query` sees the cross-attention's
    /// queries [d/n_head, n_tokens, n_head, batch].
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, const DecoderContext& context, int layer,
                            ggml_tensor* audio_keys, ggml_tensor* audio_values,
                            const std::function<void(ggml_tensor* query)>& watch_query) const;

   private:
    ggml_tensor* self_attention(Graph& graph, ggml_tensor* x, const DecoderContext& context, int layer) const;

    int64_t d_, n_head_;
    LayerNorm attn_ln_, cross_attn_ln_, mlp_ln_;
    Linear qkv_, out_, cross_query_, cross_kv_, cross_out_;
    Mlp mlp_;
};

/// Sizes of a causal decoder with grouped queries.
struct CausalDims {
    int64_t d, n_head, n_kv_head, d_head, d_hidden;
    float rope_base, norm_eps;
};

/// Where the tokens of a pass stand, as the graph wants it: their places or, for our own kernels, the cosines
/// and sines of their angles, which all layers share.
class Rotation {
   public:
    Rotation() = default;
    Rotation(Graph& graph, const CausalDims& dims, int64_t n_tokens);
    /// Before a run; `places` of the n_tokens.
    void set(const std::vector<int32_t>& places) const;

    ggml_tensor* places() const { return places_; }  // I32 [n_tokens], or null
    ggml_tensor* turns() const { return turns_; }    // [d_head, n_tokens], or null

   private:
    ggml_tensor *places_ = nullptr, *turns_ = nullptr;
    float base_ = 0;
};

/// What a causal block reads besides its input. The pass covers `batch` windows of the cache from `first` on.
struct CausalContext {
    int64_t n_tokens;  // new tokens of each sequence
    int64_t batch;     // sequences
    int64_t n_kv;      // cells of the cache that are looked at
    int first;
    KvCache* cache;
    ggml_tensor* cells;    // I64 [n_tokens, 1, batch]: where the new keys and values go
    Rotation rotation;     // by the place of each token in its sequence
    ggml_tensor* mask;     // F16 [n_kv, n_tokens, 1, batch], or null: causal, with
    ggml_tensor* offsets;  // I32 [batch]: cells before each sequence's first new token
};

/// x += attention(norm(x)) with normalised, rotated queries and keys; x += down(silu(gate) · up). Qwen3.
/// Follows transformers 5.23, models/qwen3/modeling_qwen3.py: Qwen3DecoderLayer.
class CausalBlock {
   public:
    CausalBlock(Weights weights, const CausalDims& dims);
    /// x [d, rows] → [d, rows], keys and values stored
    ggml_tensor* attend(Graph& graph, ggml_tensor* x, const CausalContext& context, int layer) const;
    /// x [d, any rows] → the same rows
    ggml_tensor* feed_forward(Graph& graph, ggml_tensor* x) const;

   private:
    CausalDims dims_;
    RmsNorm attn_norm_, q_norm_, k_norm_, mlp_norm_;
    Linear qkv_, out_, gate_up_, down_;
};

}  // namespace rustasr
