// Sixteen floats in AVX-512 (F, BW, DQ, VL). Include only in a file compiled for it.
#pragma once

// GCC 12 warns of its own intrinsics' deliberately undefined operands (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <cstdint>

#include "kernels/simd_exp2.h"
#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

struct Simd {
    using V = __m512;
    static constexpr int W = 16;
    // Register blocks: broadcast values x vectors of rows, rows x vectors of a head's dimension.
    static constexpr int kBlock = 8, kVectors = 3, kNarrowRows = 4, kNarrowVectors = 4;

    static RUSTASR_INLINE V zero() { return _mm512_setzero_ps(); }
    static RUSTASR_INLINE V set1(float x) { return _mm512_set1_ps(x); }
    static RUSTASR_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
    static RUSTASR_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x); }
    static RUSTASR_INLINE V load_f16(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static RUSTASR_INLINE V load_bf16(const uint16_t* p) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    static RUSTASR_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
    static RUSTASR_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
    static RUSTASR_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
    static RUSTASR_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
    // b where a is NaN
    static RUSTASR_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
    static RUSTASR_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
    // a > b ? x : y, lane by lane
    static RUSTASR_INLINE V select_greater(V a, V b, V x, V y) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
    }

    // 2^x for x <= 127; at least 2^-126. Adding 1.5 * 2^23 rounds x to an integer and leaves that integer in
    // the low bits, from where it moves into the exponent: this keeps the multipliers free, which
    // vrndscaleps, vreduceps and vscalefps would share with the products.
    static RUSTASR_INLINE V exp2(V x) {
        const Parts s = split(x);
        V p = fma(set1(kExp2C6), s.fraction, set1(kExp2C5));
        p = fma(p, s.fraction, set1(kExp2C4));
        p = fma(p, s.fraction, set1(kExp2C3));
        p = fma(p, s.fraction, set1(kExp2C2));
        p = fma(p, s.fraction, set1(kExp2C1));
        return times_power(fma(p, s.fraction, set1(1.0f)), s);
    }
    static RUSTASR_INLINE V exp2_short(V x) {
        const Parts s = split(x);
        V p = fma(set1(kExp2Short3), s.fraction, set1(kExp2Short2));
        p = fma(p, s.fraction, set1(kExp2Short1));
        return times_power(fma(p, s.fraction, set1(1.0f)), s);
    }

    static RUSTASR_INLINE float sum(V x) { return _mm512_reduce_add_ps(x); }
    static RUSTASR_INLINE float maximum(V x) { return _mm512_reduce_max_ps(x); }

    // r becomes its transpose, 16 x 16
    static RUSTASR_INLINE void transpose(V* r) {
        V t[16];
        RUSTASR_UNROLL
        for (int i = 0; i < 8; i++) {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        RUSTASR_UNROLL
        for (int i = 0; i < 4; i++) {
            r[4 * i] = pairs<0x44>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = pairs<0xee>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = pairs<0x44>(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = pairs<0xee>(t[4 * i + 1], t[4 * i + 3]);
        }
        // r[4g + c] holds in its 128-bit lane l the column 4l + c of rows 4g .. 4g + 3.
        RUSTASR_UNROLL
        for (int c = 0; c < 4; c++) {
            const V lo02 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
            const V lo13 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
            const V hi02 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
            const V hi13 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
            t[c] = _mm512_shuffle_f32x4(lo02, hi02, 0x88);
            t[8 + c] = _mm512_shuffle_f32x4(lo02, hi02, 0xdd);
            t[4 + c] = _mm512_shuffle_f32x4(lo13, hi13, 0x88);
            t[12 + c] = _mm512_shuffle_f32x4(lo13, hi13, 0xdd);
        }
        RUSTASR_UNROLL
        for (int i = 0; i < 16; i++) r[i] = t[i];
    }

    // lane i of the result = sum of the lanes of p[i]
    static RUSTASR_INLINE V sums(const V* p) {
        V t[8];
        RUSTASR_UNROLL
        for (int i = 0; i < 8; i++) {
            t[i] =
                add(_mm512_unpacklo_ps(p[2 * i], p[2 * i + 1]), _mm512_unpackhi_ps(p[2 * i], p[2 * i + 1]));
        }
        V u[4];
        RUSTASR_UNROLL
        for (int i = 0; i < 4; i++)
            u[i] = add(pairs<0x44>(t[2 * i], t[2 * i + 1]), pairs<0xee>(t[2 * i], t[2 * i + 1]));
        const V a = add(_mm512_shuffle_f32x4(u[0], u[1], 0x88), _mm512_shuffle_f32x4(u[0], u[1], 0xdd));
        const V b = add(_mm512_shuffle_f32x4(u[2], u[3], 0x88), _mm512_shuffle_f32x4(u[2], u[3], 0xdd));
        return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }

   private:
    struct Parts {
        V fraction, shifted;  // x - round(x), round(x) + 1.5 * 2^23
    };
    static RUSTASR_INLINE Parts split(V x) {
        const V magic = set1(12582912.0f);
        x = _mm512_max_ps(set1(-126.0f), x);  // NaN stays
        const V shifted = add(x, magic);
        return {sub(x, sub(shifted, magic)), shifted};
    }
    static RUSTASR_INLINE V times_power(V p, Parts s) {
        const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(s.shifted), 23);
        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
    }
    template <int kSelect>
    static RUSTASR_INLINE V pairs(V a, V b) {
        return _mm512_shuffle_ps(a, b, kSelect);
    }
};

}  // namespace
}  // namespace rustasr::kernels
