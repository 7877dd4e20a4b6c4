// The Q8_0 product with AVX-512 VNNI: vpdpbusd multiplies 64 unsigned weights by 64 signed activations.
#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header takes its deliberately undefined vectors for a mistake (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#include "kernels/q8_matmul_tile.h"

namespace rustasr::kernels {
namespace {

struct Avx512Vnni {
    using F = __m512;
    using I = __m512i;
    using W = __m512i;
    using X = __m512i;
    static constexpr int kLanes = 16;
    static constexpr int kRows = 6, kTiles = 2,
                         kTilesOfOneRow = 4;  // 24 sums and accumulators of 32 registers

    static RUSTASR_INLINE void prefetch(const uint8_t* p) {
        _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
    }
    static RUSTASR_INLINE F set1(float x) { return _mm512_set1_ps(x); }
    static RUSTASR_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
    static RUSTASR_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    static RUSTASR_INLINE F load_broadcast(const uint8_t* p) { return _mm512_castsi512_ps(broadcast(p)); }
    static RUSTASR_INLINE F load_f16(const uint8_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static RUSTASR_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
    static RUSTASR_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static RUSTASR_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
    static RUSTASR_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
    static RUSTASR_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
    static RUSTASR_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static RUSTASR_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
    static RUSTASR_INLINE I round(F x) { return _mm512_cvtps_epi32(x); }
    static RUSTASR_INLINE F times_power_of_two(F x, I e) { return _mm512_scalef_ps(x, to_float(e)); }

    static RUSTASR_INLINE W weights(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static RUSTASR_INLINE X broadcast(const uint8_t* p) {
        int32_t v;
        memcpy(&v, p, 4);
        return _mm512_set1_epi32(v);
    }
    static RUSTASR_INLINE I start(const uint8_t* p) { return broadcast(p); }
    static RUSTASR_INLINE I dot(I sum, W w, X x) { return _mm512_dpbusd_epi32(sum, w, x); }

    using H = __m512i;
    static RUSTASR_INLINE void halves(const uint8_t* p, H& low, H& high) {
        const __m512i both = _mm512_loadu_si512(p), mask = _mm512_set1_epi8(15);
        low = _mm512_and_si512(both, mask);
        high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
    static RUSTASR_INLINE I start_halves(const uint8_t* p) { return _mm512_srai_epi32(broadcast(p), 4); }
    static RUSTASR_INLINE I dot_halves(I sum, H w, X x) { return _mm512_dpbusd_epi32(sum, w, x); }
};

void quantize(const float* x, int64_t k, int64_t begin, int64_t end, uint8_t* out) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int64_t b = begin; b < end; ++b, x += kQ8Block) {
        const __m512 lo = _mm512_loadu_ps(x), hi = _mm512_loadu_ps(x + 16);
        // As integers, magnitudes compare as floats do, and NaN and infinity are above every finite value.
        const int32_t bits =
            _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(lo), magnitude),
                                                     _mm512_and_si512(_mm512_castps_si512(hi), magnitude)));
        float greatest, scale;
        memcpy(&greatest, &bits, 4);
        const bool keep = greatest >= kQ8Smallest && bits < kQ8InfinityBits;
        const __m512 inverse = _mm512_set1_ps(keep ? 127.0f / greatest : 0.0f);
        const __mmask16 mask = keep ? 0xffff : 0;
        const __m512i qlo = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(mask, lo, inverse));
        const __m512i qhi = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(mask, hi, inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32 * b), _mm512_cvtepi32_epi8(qlo));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32 * b + 16), _mm512_cvtepi32_epi8(qhi));
        scale = keep ? greatest / 127.0f : 0.0f;
        const int32_t correction = -128 * _mm512_reduce_add_epi32(_mm512_add_epi32(qlo, qhi));
        memcpy(out + k + 4 * b, bits >= kQ8InfinityBits ? static_cast<const void*>(&kQ8NanBits) : &scale, 4);
        memcpy(out + k + 4 * (k / kQ8Block + b), &correction, 4);
    }
}

}  // namespace

const Q8Form kQ8Avx512Vnni = {"avx512vnni",       0x80,     Avx512Vnni::kRows,
                              Avx512Vnni::kTiles, quantize, product<Avx512Vnni>};

}  // namespace rustasr::kernels
