// Fused softmax attention for the CPU, as one ggml custom operation.
//
//   y[:, h, i, b] = sum_j softmax_j(score[i, j]) * v[:, j, h', b]
//   score[i, j]   = scale * (<q[i], k[j]> + relative term) + mask[j, i, h, b]
//
// with h' = h / (H / Hkv). It takes the place of ggml_flash_attn_ext on the CPU: same operands, same result
// layout. The scores never leave the cache: keys are taken in tiles and the softmax is corrected as the
// running maximum grows (online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867; tiling as in
// FlashAttention, Dao et al. 2022, arXiv:2205.14135). Keys that a query does not see are not computed, but
// for the rest of a tile.
//
// A row's result does not depend on the number of threads, nor on its neighbours in the batch.
#pragma once

#include <cstdint>

#include "ggml.h"

namespace rustasr::kernels {

// The arithmetic of the two products. Sums and the softmax are F32 always, and so is everything for up to 8
// queries. Without BF16 instructions all three are F32.
enum class Precision : int32_t {
    F32,    // F32 dot products on K and V as stored (F16 and BF16 convert exactly)
    Mixed,  // scores as F32; weights and V rounded to BF16: an error of at most 2^-8 of the greatest |v|,
            // mostly 2^-10
    Fast,   // Q and K rounded to BF16 too: a score of size s is off by about s / 1000
};

// A term of the scores for the distance of the key from the query (Transformer-XL, Dai et al. 2019,
// arXiv:1901.02860, section 3.3):
//   score[i, j] = scale * (<q[i] + content_bias, k[j]> + <q[i] + distance_bias, table[R - 1 - i + j]>)
// Only the rows of the table that a tile needs are multiplied: there is no [Tq, 2R - 1] array.
struct RelativePositions {
    ggml_tensor* table = nullptr;          // [D, 2R - 1, H] F32, F16 or BF16; row R - 1 belongs to distance 0
    ggml_tensor* content_bias = nullptr;   // [D, H] F32 or nullptr: u of the paper
    ggml_tensor* distance_bias = nullptr;  // [D, H] F32 or nullptr: v of the paper
};

struct AttentionOptions {
    static constexpr int32_t kUnlimited = INT32_MAX;

    ggml_tensor* mask = nullptr;     // F16 / F32 [>= Tk, >= Tq, 1 | H, 1 | B], added to the scaled scores
    ggml_tensor* lengths = nullptr;  // I32 [B]: keys >= lengths[b] are ignored (a ragged batch)
    // The place of query 0 among the keys, I32 [B]; nullptr: 0. Query i stands at i + offset.
    ggml_tensor* offsets = nullptr;
    // A query at place p sees keys p - before ... p + after: after = 0 is causal, both the same a band.
    int32_t before = kUnlimited, after = kUnlimited;
    // Queries and keys [n * window, (n + 1) * window) see one another and nothing else; 0: no windows.
    int32_t window = 0;
    RelativePositions positions;  // with as many K/V heads as query heads
    Precision precision = Precision::F32;
};

// q        [D, Tq, H, B] F32
// k, v     [D, Tk, Hkv, B] F32, F16 or BF16, both of one type; H a multiple of Hkv (grouped queries)
// result   [D, H, Tq, B] F32, contiguous; zeros in rows that have no key at all
//
// q, k, v, the mask and the table of positions may be views with any strides from dimension 1 up (for example
// the three parts of a fused [3*D*H, T, B] product, permuted); elements of a row are adjacent. D must satisfy
// attention_supported().
//
// Several hypotheses over one recording (beams) attend fastest to its keys as queries of one sequence: put
// them in Tq, not in B, so that K and V are read once.
ggml_tensor* attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, float scale,
                       const AttentionOptions& options = {});

// Whether attention() takes this head size and K/V type. False for every input when the kernels are switched
// off (RUSTASR_KERNELS=off); the caller then builds ggml's own operation.
bool attention_supported(int64_t head_dim, ggml_type kv_type);

// The form chosen for Precision::Fast: "avx512bf16", "avx512", "avx2", "neon", "portable" or "off".
const char* attention_form();

}  // namespace rustasr::kernels
