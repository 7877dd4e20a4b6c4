// What the two 256-bit forms share: eight floats, and the quantisation of activations.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/q8_matmul_tile.h"

namespace rustasr::kernels {
namespace {

struct Avx2Floats {
    using F = __m256;
    using I = __m256i;
    static constexpr int kLanes = 8;

    static RUSTASR_INLINE void prefetch(const uint8_t* p) {
        _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
    }
    static RUSTASR_INLINE F set1(float x) { return _mm256_set1_ps(x); }
    static RUSTASR_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
    static RUSTASR_INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x); }
    static RUSTASR_INLINE F load_broadcast(const uint8_t* p) { return _mm256_castsi256_ps(broadcast(p)); }
    static RUSTASR_INLINE F load_f16(const uint8_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static RUSTASR_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
    static RUSTASR_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static RUSTASR_INLINE F div(F a, F b) { return _mm256_div_ps(a, b); }
    static RUSTASR_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }
    static RUSTASR_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
    static RUSTASR_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static RUSTASR_INLINE F to_float(I x) { return _mm256_cvtepi32_ps(x); }
    static RUSTASR_INLINE I round(F x) { return _mm256_cvtps_epi32(x); }
    static RUSTASR_INLINE F times_power_of_two(F x, I e) {
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(e, 23)));
    }
    static RUSTASR_INLINE I broadcast(const uint8_t* p) {
        int32_t v;
        memcpy(&v, p, 4);
        return _mm256_set1_epi32(v);
    }

    using H = __m256i;
    static RUSTASR_INLINE void halves(const uint8_t* p, H& low, H& high) {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        const __m256i mask = _mm256_set1_epi8(15);
        low = _mm256_and_si256(both, mask);
        high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    }
    static RUSTASR_INLINE I start_halves(const uint8_t* p) { return _mm256_srai_epi32(broadcast(p), 4); }
};

RUSTASR_INLINE int32_t greatest_lane(__m256i x) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

RUSTASR_INLINE int32_t sum_of_lanes(__m256i x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

void quantize(const float* x, int64_t k, int64_t begin, int64_t end, uint8_t* out) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int64_t b = begin; b < end; ++b, x += kQ8Block) {
        __m256 v[4];
        __m256i greatest_bits = _mm256_setzero_si256();
        RUSTASR_UNROLL
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            // As integers, magnitudes compare as floats do; NaN and infinity are above every finite value.
            greatest_bits =
                _mm256_max_epi32(greatest_bits, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        const int32_t bits = greatest_lane(greatest_bits);
        float greatest;
        memcpy(&greatest, &bits, 4);
        const bool keep = greatest >= kQ8Smallest && bits < kQ8InfinityBits;
        const __m256 inverse = _mm256_set1_ps(keep ? 127.0f / greatest : 0.0f);
        const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(keep ? -1 : 0));
        __m256i q[4];
        RUSTASR_UNROLL
        for (int i = 0; i < 4; ++i) {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_and_ps(v[i], mask), inverse));
        }
        const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
        // The packs work within 128-bit halves; the permutation puts the groups of four back in order.
        const __m256i bytes =
            _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * b),
                            _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
        const float scale = keep ? greatest / 127.0f : 0.0f;
        const int32_t correction = -128 * sum_of_lanes(sums);
        memcpy(out + k + 4 * b, bits >= kQ8InfinityBits ? static_cast<const void*>(&kQ8NanBits) : &scale, 4);
        memcpy(out + k + 4 * (k / kQ8Block + b), &correction, 4);
    }
}

}  // namespace
}  // namespace rustasr::kernels
