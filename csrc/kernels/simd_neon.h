// Four floats in NEON (AArch64). Include only in a file compiled for it.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/simd_exp2.h"
#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

struct Simd {
    using V = float32x4_t;
    static constexpr int W = 4;
    // Register blocks for thirty-two registers: see simd_avx512.h.
    static constexpr int kBlock = 8, kVectors = 3, kNarrowRows = 4, kNarrowVectors = 4;

    static RUSTASR_INLINE V zero() { return vdupq_n_f32(0.0f); }
    static RUSTASR_INLINE V set1(float x) { return vdupq_n_f32(x); }
    static RUSTASR_INLINE V load(const float* p) { return vld1q_f32(p); }
    static RUSTASR_INLINE void store(float* p, V x) { vst1q_f32(p, x); }
    static RUSTASR_INLINE V load_f16(const uint16_t* p) {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
    }
    static RUSTASR_INLINE V load_bf16(const uint16_t* p) {
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
    }
    static RUSTASR_INLINE V add(V a, V b) { return vaddq_f32(a, b); }
    static RUSTASR_INLINE V sub(V a, V b) { return vsubq_f32(a, b); }
    static RUSTASR_INLINE V mul(V a, V b) { return vmulq_f32(a, b); }
    static RUSTASR_INLINE V div(V a, V b) { return vdivq_f32(a, b); }
    static RUSTASR_INLINE V max(V a, V b) { return vmaxnmq_f32(a, b); }
    static RUSTASR_INLINE V fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
    // a > b ? x : y, lane by lane
    static RUSTASR_INLINE V select_greater(V a, V b, V x, V y) { return vbslq_f32(vcgtq_f32(a, b), x, y); }

    // 2^x for x <= 127; at least 2^-126
    static RUSTASR_INLINE V exp2(V x) {
        x = vmaxq_f32(x, set1(-126.0f));  // NaN stays
        const V n = vrndnq_f32(x);
        const V f = sub(x, n);
        V p = fma(set1(kExp2C6), f, set1(kExp2C5));
        p = fma(p, f, set1(kExp2C4));
        p = fma(p, f, set1(kExp2C3));
        p = fma(p, f, set1(kExp2C2));
        p = fma(p, f, set1(kExp2C1));
        p = fma(p, f, set1(1.0f));
        const int32x4_t power = vshlq_n_s32(vcvtq_s32_f32(n), 23);
        return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), power));
    }

    static RUSTASR_INLINE float sum(V x) { return vaddvq_f32(x); }
    static RUSTASR_INLINE float maximum(V x) { return vmaxvq_f32(x); }

    // r becomes its transpose, 4 x 4
    static RUSTASR_INLINE void transpose(V* r) {
        const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
        r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
        r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
        r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
        r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
    }

    // lane i of the result = sum of the lanes of p[i]
    static RUSTASR_INLINE V sums(const V* p) {
        return vpaddq_f32(vpaddq_f32(p[0], p[1]), vpaddq_f32(p[2], p[3]));
    }
};

}  // namespace
}  // namespace rustasr::kernels
