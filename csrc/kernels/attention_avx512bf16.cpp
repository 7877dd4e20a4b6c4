// Fused attention in AVX-512 with BF16 dot products (vdpbf16ps): Q, K (unless mixed), V and the weights are
// rounded to 8 significant bits, sums stay in F32. Few queries go the F32 way of attention_avx512.cpp, which
// the memory limits anyway.
#include "kernels/simd_avx512.h"
//
#include "kernels/attention_wide.h"

namespace rustasr::kernels {
namespace {

// Two BF16 in a 32-bit lane, the first one below: the pair that vdpbf16ps multiplies.
RUSTASR_INLINE V pair_up(V first, V second) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves));
}

// As FloatProduct, a lane holding a pair: two elements of the head for the scores, two keys for the weighted
// sum.
struct BfloatProduct {
    static constexpr int kPair = 2;

    static RUSTASR_INLINE V madd(V a, V b, V sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

    // [dim / 2][width]
    static void pack_rows(float* rows, int64_t dim, int64_t width) {
        for (int64_t d = 0; d < dim; d += 2) {
            for (int64_t n = 0; n < width; n += W) {
                const V pair =
                    pair_up(Simd::load(rows + d * width + n), Simd::load(rows + (d + 1) * width + n));
                Simd::store(rows + d / 2 * width + n, pair);
            }
        }
    }

    template <Element kType>
    static RUSTASR_INLINE void pack_broadcast(const char* row, int64_t dim, float* packed) {
        for (int64_t d = 0; d < dim; d += W) {
            const char* p = row + d * element_size(kType);
            const V x = d + W <= dim ? load_as<kType>(p) : load_part_as<kType>(p, dim - d);
            const __m256i half = (__m256i)_mm512_cvtneps_pbh(x);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed + d / 2), half);
        }
    }

    // [dim / kBlock][key / 2][kBlock]; what lies behind the rows is read but not kept
    static RUSTASR_INLINE void pack_values(const float* row0, const float* row1, int64_t dim, float* values,
                                           int64_t key) {
        for (int64_t d = 0; d < dim; d += 8) {
            const __m512i pairs = _mm512_castps_si512(pair_up(Simd::load(row0 + d), Simd::load(row1 + d)));
            float* dst = values + d * kTileKeys + key / 2 * kBlock;
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm512_castsi512_si256(pairs));
        }
    }

    // In place: the pair of keys 2j and 2j + 1 takes the place of key j. The sum is that of the rounded
    // weights, so that the result is a weighted mean of V whatever the rounding.
    static RUSTASR_INLINE V weights(float* scores, int64_t stride, int64_t n_keys, V best) {
        const V ones = _mm512_castsi512_ps(_mm512_set1_epi32(0x3f803f80));
        V sum = Simd::zero();
        for (int64_t j = 0; j < n_keys; j += 2) {
            const float* s = scores + j * stride;
            const V p0 = Simd::exp2_short(Simd::sub(Simd::load(s), best));
            const V p1 =
                j + 1 < n_keys ? Simd::exp2_short(Simd::sub(Simd::load(s + stride), best)) : Simd::zero();
            const V pair = pair_up(p0, p1);
            Simd::store(scores + j / 2 * stride, pair);
            sum = madd(pair, ones, sum);
        }
        return sum;
    }
};

size_t scratch_bytes(int64_t head_dim, bool positions) {
    const size_t wide = wide_scratch_bytes(head_dim, positions);
    const size_t few = attention_form_avx512().scratch_bytes(head_dim, positions);
    return wide > few ? wide : few;
}

}  // namespace

const AttentionForm& attention_form_avx512bf16() {
    const AttentionForm& exact = attention_form_avx512();
    static const AttentionForm form = {
        "avx512bf16", exact.narrow_rows, kTiles * kTileRows,
        kTileRows,    scratch_bytes,     attend_wide<BfloatProduct, BfloatProduct>,
        exact.narrow,
    };
    return form;
}

const AttentionForm& attention_form_avx512bf16_mixed() {
    const AttentionForm& exact = attention_form_avx512();
    static const AttentionForm form = {
        "avx512bf16 mixed", exact.narrow_rows, kTiles * kTileRows,
        kTileRows,          scratch_bytes,     attend_wide<FloatProduct, BfloatProduct>,
        exact.narrow,
    };
    return form;
}

}  // namespace rustasr::kernels
