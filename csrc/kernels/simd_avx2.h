// Eight floats in AVX2 with FMA and F16C. Include only in a file compiled for them.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/simd_exp2.h"
#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

struct Simd {
    using V = __m256;
    static constexpr int W = 8;
    // Register blocks for sixteen registers: see simd_avx512.h.
    static constexpr int kBlock = 4, kVectors = 3, kNarrowRows = 2, kNarrowVectors = 4;

    static RUSTASR_INLINE V zero() { return _mm256_setzero_ps(); }
    static RUSTASR_INLINE V set1(float x) { return _mm256_set1_ps(x); }
    static RUSTASR_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
    static RUSTASR_INLINE void store(float* p, V x) { _mm256_storeu_ps(p, x); }
    static RUSTASR_INLINE V load_f16(const uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static RUSTASR_INLINE V load_bf16(const uint16_t* p) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
    static RUSTASR_INLINE V add(V a, V b) { return _mm256_add_ps(a, b); }
    static RUSTASR_INLINE V sub(V a, V b) { return _mm256_sub_ps(a, b); }
    static RUSTASR_INLINE V mul(V a, V b) { return _mm256_mul_ps(a, b); }
    static RUSTASR_INLINE V div(V a, V b) { return _mm256_div_ps(a, b); }
    static RUSTASR_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
    static RUSTASR_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
    // a > b ? x : y, lane by lane
    static RUSTASR_INLINE V select_greater(V a, V b, V x, V y) {
        return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
    }

    // 2^x for x <= 127; at least 2^-126
    static RUSTASR_INLINE V exp2(V x) {
        x = _mm256_max_ps(set1(-126.0f), x);  // NaN stays
        const V n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        const V f = sub(x, n);
        V p = fma(set1(kExp2C6), f, set1(kExp2C5));
        p = fma(p, f, set1(kExp2C4));
        p = fma(p, f, set1(kExp2C3));
        p = fma(p, f, set1(kExp2C2));
        p = fma(p, f, set1(kExp2C1));
        p = fma(p, f, set1(1.0f));
        const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    }

    static RUSTASR_INLINE float sum(V x) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
    }
    static RUSTASR_INLINE float maximum(V x) {
        __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        m = _mm_max_ps(m, _mm_movehl_ps(m, m));
        return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    }

    // r becomes its transpose, 8 x 8
    static RUSTASR_INLINE void transpose(V* r) {
        V t[8], u[8];
        RUSTASR_UNROLL
        for (int i = 0; i < 4; i++) {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        // u[4g + c] holds in its 128-bit lane l the column 4l + c of rows 4g .. 4g + 3.
        RUSTASR_UNROLL
        for (int i = 0; i < 2; i++) {
            u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
            u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
            u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
            u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
        }
        RUSTASR_UNROLL
        for (int c = 0; c < 4; c++) {
            r[c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
            r[4 + c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
        }
    }

    // lane i of the result = sum of the lanes of p[i]
    static RUSTASR_INLINE V sums(const V* p) {
        const V a = _mm256_hadd_ps(_mm256_hadd_ps(p[0], p[1]), _mm256_hadd_ps(p[2], p[3]));
        const V b = _mm256_hadd_ps(_mm256_hadd_ps(p[4], p[5]), _mm256_hadd_ps(p[6], p[7]));
        return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
};

}  // namespace
}  // namespace rustasr::kernels
