#pragma once
// Softmax attention over heads that lie side by side in a row of d values.

#include "core/graph.h"
#include "nn/frame_mask.h"

namespace rustasr {

/// Part `index` of rows that hold several of d values (a fused q|k|v product): x [n·d, T·B] seen as
/// [d/n_head, T, n_head, B], without a copy.
ggml_tensor* split_heads(Graph& graph, ggml_tensor* x, int64_t d, int64_t n_head, int64_t index,
                         int64_t n_frames, int64_t batch);

/// q [D, Tq, H, B] F32; k, v [D, Tk, H, B] F32 or F16; mask F16 [Tk, Tq, 1, B] or null, added to the scores;
/// lengths I32 [B] or null: keys from there on are ignored. Returns [D·H, Tq·B].
ggml_tensor* attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                       ggml_tensor* lengths = nullptr);

/// Whether a session on this backend has the forms below that ggml's operations do not express.
bool attention_is_ours(const Backend& backend, int64_t d_head);

/// Query i of sequence b sees keys 0 … offsets[b] + i; offsets I32 [B]. Where attention_is_ours().
ggml_tensor* causal_attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v,
                              ggml_tensor* offsets);

/// Full attention over the frames of a batch whose lengths differ where `frames` says so, or over windows of
/// `window` frames that do not see each other (several of them only where attention_is_ours()).
/// q, k, v [D, T, H, B] F32. Returns [D·H, T·B].
ggml_tensor* attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, const FrameMask& frames,
                       int window = 0);

/// The same with a term for the distance of key j from query i (Transformer-XL, Dai et al. 2019,
/// arXiv:1901.02860): scores[i, j] = ((q[i] + bias_u)·k[j] + (q[i] + bias_v)·positions[T − 1 − i + j]) / √D.
/// q, k, v [D, T, H, B] F32; bias_u, bias_v [D, H] F32; positions [D, 2T − 1, H] F32 or F16. Returns [D·H,
/// T·B].
ggml_tensor* relative_attention(Graph& graph, ggml_tensor* q, ggml_tensor* bias_u, ggml_tensor* bias_v,
                                ggml_tensor* k, ggml_tensor* v, ggml_tensor* positions,
                                const FrameMask& frames);

}  // namespace rustasr
