// Fused softmax attention for the CPU, as one ggml custom operation.
//
//   y[:, h, t, b] = sum_j softmax_j(scale * <q[:, t, h, b], k[:, j, h', b]> + mask[j, t, h, b]) * v[:, j, h',
//   b]
//
// with h' = h / (H / Hkv). It takes the place of ggml_flash_attn_ext on the CPU: same operands, same result
// layout. The scores never leave the cache: keys are taken in tiles and the softmax is corrected as the
// running maximum grows (online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867; tiling as in
// FlashAttention, Dao et al. 2022, arXiv:2205.14135).
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

// q        [D, Tq, H, B] F32
// k, v     [D, Tk, Hkv, B] F32, F16 or BF16, both of one type; H a multiple of Hkv (grouped queries)
// mask     nullptr, or F16 / F32 [>= Tk, >= Tq, 1 | H, 1 | B], added to the scaled scores
// lengths  nullptr, or I32 [B]: keys >= lengths[b] are ignored (a ragged batch)
// result   [D, H, Tq, B] F32, contiguous; zeros in rows that have no key at all
//
// q, k, v and the mask may be views with any strides from dimension 1 up (for example the three parts of a
// fused [3*D*H, T, B] product, permuted); elements of a row are adjacent. D must satisfy
// attention_supported().
//
// Several hypotheses over one recording (beams) attend fastest to its keys as queries of one sequence: put
// them in Tq, not in B, so that K and V are read once.
ggml_tensor* attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                       float scale, ggml_tensor* lengths = nullptr, Precision precision = Precision::F32);

// Whether attention() takes this head size and K/V type. False for every input when the kernels are switched
// off (RUSTASR_KERNELS=off); the caller then builds ggml's own operation.
bool attention_supported(int64_t head_dim, ggml_type kv_type);

// The form chosen for Precision::Fast: "avx512bf16", "avx512", "avx2", "neon", "portable" or "off".
const char* attention_form();

}  // namespace rustasr::kernels
