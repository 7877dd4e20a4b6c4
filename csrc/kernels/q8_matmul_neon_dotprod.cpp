// The Q8_0 product with the dot-product extension of AArch64: sdot sums four products of signed bytes in each
// lane.
#include <arm_neon.h>

#include <cstring>

#include "kernels/q8_matmul_tile.h"

namespace rustasr::kernels {
namespace {

struct NeonDotprod {
    using F = float32x4_t;
    using I = int32x4_t;
    using W = int8x16_t;
    using X = int8x16_t;
    static constexpr int kLanes = 4;
    static constexpr int kRows = 4, kTiles = 1, kTilesOfOneRow = 2;

    static RUSTASR_INLINE void prefetch(const uint8_t* p) {
#if defined(__GNUC__)
        __builtin_prefetch(p, 0, 2);
#else
        (void)p;
#endif
    }
    static RUSTASR_INLINE F set1(float x) { return vdupq_n_f32(x); }
    static RUSTASR_INLINE F load(const float* p) { return vld1q_f32(p); }
    static RUSTASR_INLINE void store(float* p, F x) { vst1q_f32(p, x); }
    static RUSTASR_INLINE int32x4_t broadcast_word(const uint8_t* p) {
        int32_t v;
        memcpy(&v, p, 4);
        return vdupq_n_s32(v);
    }
    static RUSTASR_INLINE F load_broadcast(const uint8_t* p) {
        return vreinterpretq_f32_s32(broadcast_word(p));
    }
    static RUSTASR_INLINE F load_f16(const uint8_t* p) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
    }
    static RUSTASR_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
    static RUSTASR_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
    static RUSTASR_INLINE F div(F a, F b) { return vdivq_f32(a, b); }
    static RUSTASR_INLINE F min(F a, F b) { return vminq_f32(a, b); }
    static RUSTASR_INLINE F max(F a, F b) { return vmaxq_f32(a, b); }
    static RUSTASR_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
    static RUSTASR_INLINE F to_float(I x) { return vcvtq_f32_s32(x); }
    static RUSTASR_INLINE I round(F x) { return vcvtnq_s32_f32(x); }
    static RUSTASR_INLINE F times_power_of_two(F x, I e) {
        return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(e, 23)));
    }

    static RUSTASR_INLINE W weights(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
    static RUSTASR_INLINE X broadcast(const uint8_t* p) { return vreinterpretq_s8_s32(broadcast_word(p)); }
    static RUSTASR_INLINE I start(const uint8_t*) { return vdupq_n_s32(0); }
    static RUSTASR_INLINE I dot(I sum, W w, X x) { return vdotq_s32(sum, w, x); }

    using H = int8x16_t;
    static RUSTASR_INLINE void halves(const uint8_t* p, H& low, H& high) {
        const uint8x16_t both = vld1q_u8(p);
        low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
    }
    static RUSTASR_INLINE I start_halves(const uint8_t* p) { return vshrq_n_s32(broadcast_word(p), 4); }
    static RUSTASR_INLINE I dot_halves(I sum, H w, X x) { return vdotq_s32(sum, w, x); }
};

void quantize(const float* x, int64_t k, int64_t begin, int64_t end, uint8_t* out) {
    for (int64_t b = begin; b < end; ++b, x += kQ8Block) {
        float32x4_t v[8];
        int32x4_t greatest_bits = vdupq_n_s32(0);
        RUSTASR_UNROLL
        for (int i = 0; i < 8; ++i) {
            v[i] = vld1q_f32(x + 4 * i);
            // As integers, magnitudes compare as floats do; NaN and infinity are above every finite value.
            greatest_bits = vmaxq_s32(greatest_bits, vreinterpretq_s32_f32(vabsq_f32(v[i])));
        }
        const int32_t bits = vmaxvq_s32(greatest_bits);
        float greatest;
        memcpy(&greatest, &bits, 4);
        const bool keep = greatest >= kQ8Smallest && bits < kQ8InfinityBits;
        const float inverse = keep ? 127.0f / greatest : 0.0f;
        int16x8_t halves[4];
        int32x4_t sums = vdupq_n_s32(0);
        RUSTASR_UNROLL
        for (int i = 0; i < 4; ++i) {
            // NaN becomes 0, and infinity times 0 is NaN.
            const int32x4_t lo = vcvtnq_s32_f32(vmulq_n_f32(v[2 * i], inverse));
            const int32x4_t hi = vcvtnq_s32_f32(vmulq_n_f32(v[2 * i + 1], inverse));
            sums = vaddq_s32(sums, vaddq_s32(lo, hi));
            halves[i] = vcombine_s16(vmovn_s32(lo), vmovn_s32(hi));
        }
        int8_t* values = reinterpret_cast<int8_t*>(out + 32 * b);
        vst1q_s8(values, vcombine_s8(vmovn_s16(halves[0]), vmovn_s16(halves[1])));
        vst1q_s8(values + 16, vcombine_s8(vmovn_s16(halves[2]), vmovn_s16(halves[3])));
        const float scale = keep ? greatest / 127.0f : 0.0f;
        const int32_t correction = -128 * vaddvq_s32(sums);
        memcpy(out + k + 4 * b, bits >= kQ8InfinityBits ? static_cast<const void*>(&kQ8NanBits) : &scale, 4);
        memcpy(out + k + 4 * (k / kQ8Block + b), &correction, 4);
    }
}

}  // namespace

const Q8Form kQ8NeonDotprod = {
    "neon", 0x00, NeonDotprod::kRows, NeonDotprod::kTiles, quantize, product<NeonDotprod>};

}  // namespace rustasr::kernels
