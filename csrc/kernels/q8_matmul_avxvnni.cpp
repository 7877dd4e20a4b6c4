// The Q8_0 product with AVX-VNNI: vpdpbusd on 32 unsigned weights and 32 signed activations.
#include "kernels/q8_matmul_avx2_common.h"

namespace rustasr::kernels {
namespace {

struct AvxVnni : Avx2Floats {
    using W = __m256i;
    using X = __m256i;
    static constexpr int kRows = 6, kTiles = 1, kTilesOfOneRow = 2;

    static RUSTASR_INLINE W weights(const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    static RUSTASR_INLINE I start(const uint8_t* p) { return broadcast(p); }
    static RUSTASR_INLINE I dot(I sum, W w, X x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
    static RUSTASR_INLINE I dot_halves(I sum, H w, X x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
};

}  // namespace

const Q8Form kQ8AvxVnni = {"avxvnni", 0x80, AvxVnni::kRows, AvxVnni::kTiles, quantize, product<AvxVnni>};

}  // namespace rustasr::kernels
