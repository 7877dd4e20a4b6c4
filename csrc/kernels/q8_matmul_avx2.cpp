// The Q8_0 product with AVX2: |w| times x with the sign of w, as unsigned by signed bytes. 128 * 127 * 2 fits
// 16 bits.
#include "kernels/q8_matmul_avx2_common.h"

namespace rustasr::kernels {
namespace {

struct Avx2 : Avx2Floats {
    struct W {
        __m256i value, magnitude;
    };
    using X = __m256i;
    static constexpr int kRows = 4, kTiles = 1, kTilesOfOneRow = 2;

    static RUSTASR_INLINE W weights(const uint8_t* p) {
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return {w, _mm256_abs_epi8(w)};
    }
    static RUSTASR_INLINE I start(const uint8_t*) { return _mm256_setzero_si256(); }
    static RUSTASR_INLINE I dot(I sum, const W& w, X x) {
        const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.value));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static RUSTASR_INLINE I dot_halves(I sum, H w, X x) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
    }
};

}  // namespace

const Q8Form kQ8Avx2 = {"avx2", 0x00, Avx2::kRows, Avx2::kTiles, quantize, product<Avx2>};

}  // namespace rustasr::kernels
