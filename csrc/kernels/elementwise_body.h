// The bodies of the elementwise kernels. Included by the forms after their Simd.
#pragma once

#include <cmath>

#include "kernels/elementwise_form.h"
#include "kernels/simd_part.h"

namespace rustasr::kernels {
namespace {

using V = Simd::V;
constexpr int W = Simd::W;
constexpr int kStreams = 4;  // independent chains, to hide the latency of an addition
constexpr int64_t kBlock = 1024;
static_assert(kBlock % (kStreams * W) == 0, "whole blocks");

float maximum(const float* x, int64_t n) {
    V best[kStreams];
    for (V& b : best) b = Simd::set1(-HUGE_VALF);
    int64_t i = 0;
    for (; i + kStreams * W <= n; i += kStreams * W) {
        RUSTASR_UNROLL
        for (int s = 0; s < kStreams; s++) best[s] = Simd::max(Simd::load(x + i + s * W), best[s]);
    }
    for (; i + W <= n; i += W) best[0] = Simd::max(Simd::load(x + i), best[0]);
    if (i < n) best[1] = Simd::max(load_part(x + i, n - i, -HUGE_VALF), best[1]);
    return Simd::maximum(Simd::max(Simd::max(best[0], best[1]), Simd::max(best[2], best[3])));
}

int64_t argmax(const float* x, int64_t n) {
    if (n <= 0) return -1;
    float best = -HUGE_VALF;
    int64_t block = 0;
    for (int64_t i = 0; i < n; i += kBlock) {
        const float m = maximum(x + i, n - i < kBlock ? n - i : kBlock);
        if (m > best) {
            best = m;
            block = i;
        }
    }
    for (int64_t i = block; i < n; i++) {
        if (x[i] == best) return i;
    }
    return 0;  // nothing but NaN
}

// Partial sums of a block stay in F32, those of the blocks in double.
double sum_exp(const float* x, int64_t n, float shift) {
    const V factor = Simd::set1(kLog2E), offset = Simd::set1(shift);
    const auto weight = [&](V v) { return Simd::exp2(Simd::mul(Simd::sub(v, offset), factor)); };
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
        const int64_t end = n - begin < kBlock ? n : begin + kBlock;
        V sum[kStreams];
        for (V& s : sum) s = Simd::zero();
        int64_t i = begin;
        for (; i + kStreams * W <= end; i += kStreams * W) {
            RUSTASR_UNROLL
            for (int s = 0; s < kStreams; s++) sum[s] = Simd::add(sum[s], weight(Simd::load(x + i + s * W)));
        }
        for (; i < end; i += W) {
            const V v = i + W <= end ? Simd::load(x + i) : load_part(x + i, end - i, -HUGE_VALF);
            sum[0] = Simd::add(sum[0], weight(v));
        }
        total +=
            static_cast<double>(Simd::sum(Simd::add(Simd::add(sum[0], sum[1]), Simd::add(sum[2], sum[3]))));
    }
    return total;
}

// The mean of x[i], or of (x[i] - centre)^2.
template <bool kSquares>
RUSTASR_INLINE float mean(const float* x, int64_t n, float centre) {
    const V c = Simd::set1(centre);
    V sum[kStreams];
    for (V& s : sum) s = Simd::zero();
    const auto add = [&](V v, V s) {
        if (!kSquares) return Simd::add(s, v);
        const V d = Simd::sub(v, c);
        return Simd::fma(d, d, s);
    };
    int64_t i = 0;
    for (; i + kStreams * W <= n; i += kStreams * W) {
        RUSTASR_UNROLL
        for (int s = 0; s < kStreams; s++) sum[s] = add(Simd::load(x + i + s * W), sum[s]);
    }
    for (; i + W <= n; i += W) sum[0] = add(Simd::load(x + i), sum[0]);
    if (i < n) sum[1] = add(load_part(x + i, n - i, centre), sum[1]);
    return Simd::sum(Simd::add(Simd::add(sum[0], sum[1]), Simd::add(sum[2], sum[3]))) / static_cast<float>(n);
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps, float* y) {
    const float m = mean<false>(x, n, 0.0f);
    const V centre = Simd::set1(m), factor = Simd::set1(1.0f / std::sqrt(mean<true>(x, n, m) + eps));
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        const V z = Simd::mul(Simd::sub(Simd::load(x + i), centre), factor);
        Simd::store(y + i, Simd::fma(z, Simd::load(weight + i), bias ? Simd::load(bias + i) : Simd::zero()));
    }
    if (i < n) {
        const V z = Simd::mul(Simd::sub(load_part(x + i, n - i, 0.0f), centre), factor);
        const V b = bias ? load_part(bias + i, n - i, 0.0f) : Simd::zero();
        store_part(y + i, n - i, Simd::fma(z, load_part(weight + i, n - i, 0.0f), b));
    }
}

RUSTASR_INLINE float rms_factor(const float* x, int64_t n, float eps) {
    return 1.0f / std::sqrt(mean<true>(x, n, 0.0f) + eps);
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
    const V factor = Simd::set1(rms_factor(x, n, eps));
    int64_t i = 0;
    for (; i + W <= n; i += W)
        Simd::store(y + i, Simd::mul(Simd::mul(Simd::load(x + i), factor), Simd::load(weight + i)));
    if (i < n) {
        const V z = Simd::mul(load_part(x + i, n - i, 0.0f), factor);
        store_part(y + i, n - i, Simd::mul(z, load_part(weight + i, n - i, 0.0f)));
    }
}

void rms_norm_rotate(const float* x, const float* weight, const float* turns, int64_t n, float eps,
                     float* y) {
    const int64_t half = n / 2;
    const float factor = rms_factor(x, n, eps);
    const V f = Simd::set1(factor);
    int64_t i = 0;
    for (; i + W <= half; i += W) {
        const V a = Simd::mul(Simd::mul(Simd::load(x + i), f), Simd::load(weight + i));
        const V b = Simd::mul(Simd::mul(Simd::load(x + half + i), f), Simd::load(weight + half + i));
        const V cosine = Simd::load(turns + i), sine = Simd::load(turns + half + i);
        Simd::store(y + i, Simd::sub(Simd::mul(a, cosine), Simd::mul(b, sine)));
        Simd::store(y + half + i, Simd::fma(a, sine, Simd::mul(b, cosine)));
    }
    for (; i < half; i++) {
        const float a = x[i] * factor * weight[i], b = x[half + i] * factor * weight[half + i];
        y[i] = a * turns[i] - b * turns[half + i];
        y[half + i] = a * turns[half + i] + b * turns[i];
    }
}

// max(z, 0) - |z| * erfc(|z| / sqrt 2) / 2, which keeps the small values of the negative side; erfc by
// Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26 (absolute error 1.5e-7), its
// coefficients halved.
RUSTASR_INLINE V gelu(V z) {
    const V size = Simd::max(z, Simd::sub(Simd::zero(), z));
    const V t =
        Simd::div(Simd::set1(1.0f), Simd::fma(size, Simd::set1(0.3275911f * 0.70710678f), Simd::set1(1.0f)));
    V p = Simd::fma(t, Simd::set1(0.5f * 1.061405429f), Simd::set1(0.5f * -1.453152027f));
    p = Simd::fma(p, t, Simd::set1(0.5f * 1.421413741f));
    p = Simd::fma(p, t, Simd::set1(0.5f * -0.284496736f));
    p = Simd::fma(p, t, Simd::set1(0.5f * 0.254829592f));
    const V e = Simd::exp2(Simd::mul(Simd::mul(z, z), Simd::set1(-0.5f * kLog2E)));
    const V tail = Simd::mul(Simd::mul(p, t), e);
    return Simd::sub(Simd::max(z, Simd::zero()), Simd::mul(size, tail));
}

// 1 / (1 + e^-x); e^87 is the greatest power that exp2 and the sum hold
RUSTASR_INLINE V sigmoid(V x) {
    const V e = Simd::exp2(Simd::mul(Simd::max(Simd::set1(-87.0f), x), Simd::set1(-kLog2E)));
    return Simd::div(Simd::set1(1.0f), Simd::add(Simd::set1(1.0f), e));
}

RUSTASR_INLINE V silu(V x) { return Simd::mul(x, sigmoid(x)); }

// y = f(x + bias)
template <class F>
RUSTASR_INLINE void apply(const float* x, const float* bias, int64_t n, float* y, const F& f) {
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        const V v = Simd::load(x + i);
        Simd::store(y + i, f(bias ? Simd::add(v, Simd::load(bias + i)) : v));
    }
    if (i < n) {
        const V v = load_part(x + i, n - i, 0.0f);
        store_part(y + i, n - i, f(bias ? Simd::add(v, load_part(bias + i, n - i, 0.0f)) : v));
    }
}

void gelu_row(const float* x, const float* bias, int64_t n, float* y) {
    apply(x, bias, n, y, [](V z) { return gelu(z); });
}

void silu_row(const float* x, const float* bias, int64_t n, float* y) {
    apply(x, bias, n, y, [](V z) { return silu(z); });
}

void add_scaled_row(const float* x, const float* bias, float scale, const float* residual, int64_t n,
                    float* y) {
    const V factor = Simd::set1(scale);
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        const V v = bias ? Simd::add(Simd::load(x + i), Simd::load(bias + i)) : Simd::load(x + i);
        Simd::store(y + i, Simd::fma(v, factor, Simd::load(residual + i)));
    }
    for (; i < n; i++) y[i] = (bias ? x[i] + bias[i] : x[i]) * scale + residual[i];
}

}  // namespace
}  // namespace rustasr::kernels
