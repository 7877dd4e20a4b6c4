// Four floats in plain C++: the form for processors without one of their own, and the oracle of the others.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/simd_exp2.h"
#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

struct Simd {
    struct V {
        float lane[4];
    };
    static constexpr int W = 4;
    static constexpr int kBlock = 4, kVectors = 3, kNarrowRows = 2, kNarrowVectors = 2;

    static V set1(float x) { return {{x, x, x, x}}; }
    static V zero() { return set1(0.0f); }
    static V load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
    static void store(float* p, V x) { memcpy(p, x.lane, sizeof(x.lane)); }
    static V load_f16(const uint16_t* p) { return {{half(p[0]), half(p[1]), half(p[2]), half(p[3])}}; }
    static V load_bf16(const uint16_t* p) {
        return {{bits(uint32_t{p[0]} << 16), bits(uint32_t{p[1]} << 16), bits(uint32_t{p[2]} << 16),
                 bits(uint32_t{p[3]} << 16)}};
    }
    static V add(V a, V b) {
        for (int i = 0; i < W; i++) a.lane[i] += b.lane[i];
        return a;
    }
    static V sub(V a, V b) {
        for (int i = 0; i < W; i++) a.lane[i] -= b.lane[i];
        return a;
    }
    static V mul(V a, V b) {
        for (int i = 0; i < W; i++) a.lane[i] *= b.lane[i];
        return a;
    }
    static V div(V a, V b) {
        for (int i = 0; i < W; i++) a.lane[i] /= b.lane[i];
        return a;
    }
    static V max(V a, V b) {
        for (int i = 0; i < W; i++) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
        return a;
    }
    static V fma(V a, V b, V c) {
        for (int i = 0; i < W; i++) c.lane[i] += a.lane[i] * b.lane[i];
        return c;
    }
    static V select_greater(V a, V b, V x, V y) {
        for (int i = 0; i < W; i++) y.lane[i] = a.lane[i] > b.lane[i] ? x.lane[i] : y.lane[i];
        return y;
    }
    static V exp2(V x) {
        for (int i = 0; i < W; i++) x.lane[i] = exp2(x.lane[i]);
        return x;
    }
    static float sum(V x) { return (x.lane[0] + x.lane[2]) + (x.lane[1] + x.lane[3]); }
    static float maximum(V x) {
        float m = x.lane[0];
        for (int i = 1; i < W; i++) m = x.lane[i] > m ? x.lane[i] : m;
        return m;
    }
    static void transpose(V* r) {
        for (int i = 0; i < W; i++) {
            for (int j = 0; j < i; j++) {
                const float x = r[i].lane[j];
                r[i].lane[j] = r[j].lane[i];
                r[j].lane[i] = x;
            }
        }
    }
    static V sums(const V* p) { return {{sum(p[0]), sum(p[1]), sum(p[2]), sum(p[3])}}; }

   private:
    static uint32_t word(float f) {
        uint32_t u;
        memcpy(&u, &f, sizeof(u));
        return u;
    }
    static float bits(uint32_t u) {
        float f;
        memcpy(&f, &u, sizeof(f));
        return f;
    }
    // IEEE 754 binary16. The exponent is moved by a multiplication, which also settles the subnormals;
    // infinities and NaN keep all ones.
    static float half(uint16_t h) {
        const uint32_t sign = uint32_t{h & 0x8000u} << 16, rest = uint32_t{h & 0x7fffu} << 13;
        if (rest >= 0x0f800000u) return bits(sign | 0x7f800000u | rest);
        const float magnitude = bits(rest) * bits(0x77800000u);  // 2^112
        return sign ? -magnitude : magnitude;
    }
    // 2^x for x <= 127; at least 2^-126
    static float exp2(float x) {
        x = x < -126.0f ? -126.0f : x;    // NaN stays
        const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
        const float shifted = x + magic;
        const float f = x - (shifted - magic);
        float p = kExp2C6;
        p = p * f + kExp2C5;
        p = p * f + kExp2C4;
        p = p * f + kExp2C3;
        p = p * f + kExp2C2;
        p = p * f + kExp2C1;
        p = p * f + 1.0f;
        return bits(word(p) + (word(shifted) << 23));
    }
};

}  // namespace
}  // namespace rustasr::kernels
