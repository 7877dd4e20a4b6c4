// The bodies of the exact convolution. Included by the forms after their Simd.
#pragma once

#include <cstring>

#include "kernels/exact_convolution_form.h"
#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

using V = Simd::V;
constexpr int W = Simd::W;

// Register blocks: places x vectors of outputs.
constexpr int kPlaceBlock = Simd::kBlock > 4 ? 10 : 5;
constexpr int kOutputVectors = 2;

// What the places of a chunk read: lines [across taps] of [span, C] with zeros where they lie outside; null
// for a line that does.
struct ConvolutionLines {
    const float* lines[kMostTaps];
};

// P places of a chunk, M vectors of outputs. x0: where the first place reads, in places of the lines.
template <int P, int M>
RUSTASR_INLINE void convolve(const ExactConvolutionArgs& a, const ConvolutionLines& in, int64_t x0,
                             int64_t output, float* y, const float* residual) {
    V sum[P][M];
    RUSTASR_UNROLL
    for (int m = 0; m < M; m++) {
        const V bias = a.bias ? Simd::load(a.bias + output + m * W) : Simd::zero();
        RUSTASR_UNROLL
        for (int p = 0; p < P; p++) sum[p][m] = bias;
    }
    const int64_t step = a.along.stride * a.n_in, tap_size = a.n_in * a.n_out;
    const float* kernel = a.kernel + output;
    for (int64_t across = 0; across < a.across.taps; across++) {
        for (int64_t along = 0; along < a.along.taps; along++, kernel += tap_size) {
            if (!in.lines[across]) continue;
            const float* x = in.lines[across] + (x0 + along * a.along.dilation) * a.n_in;
            const float* w = kernel;
            for (int64_t c = 0; c < a.n_in; c++, w += a.n_out, x++) {
                V weight[M];
                RUSTASR_UNROLL
                for (int m = 0; m < M; m++) weight[m] = Simd::load(w + m * W);
                RUSTASR_UNROLL
                for (int p = 0; p < P; p++) {
                    const V value = Simd::set1(x[p * step]);
                    RUSTASR_UNROLL
                    for (int m = 0; m < M; m++) sum[p][m] = Simd::fma(weight[m], value, sum[p][m]);
                }
            }
        }
    }
    RUSTASR_UNROLL
    for (int p = 0; p < P; p++) {
        RUSTASR_UNROLL
        for (int m = 0; m < M; m++) {
            const int64_t at = p * a.n_out + output + m * W;
            V v = sum[p][m];
            if (residual) v = Simd::add(v, Simd::load(residual + at));
            if (a.activation == Activation::Relu) v = Simd::max(v, Simd::zero());
            Simd::store(y + at, v);
        }
    }
}

// The last n < P places.
template <int P, int M>
RUSTASR_INLINE void convolve_rest(const ExactConvolutionArgs& a, const ConvolutionLines& in, int64_t x0,
                                  int64_t output, float* y, const float* residual, int64_t n) {
    if constexpr (P > 1) {
        if (n == P - 1) {
            convolve<P - 1, M>(a, in, x0, output, y, residual);
        } else {
            convolve_rest<P - 1, M>(a, in, x0, output, y, residual, n);
        }
    }
}

// n places, M vectors of outputs.
template <int M>
void convolve_chunk(const ExactConvolutionArgs& a, const ConvolutionLines& in, int64_t output, float* y,
                    const float* residual, int64_t n) {
    int64_t p = 0;
    for (; p + kPlaceBlock <= n; p += kPlaceBlock) {
        const int64_t at = p * a.n_out;
        convolve<kPlaceBlock, M>(a, in, p * a.along.stride, output, y + at,
                                 residual ? residual + at : nullptr);
    }
    const int64_t at = p * a.n_out;
    convolve_rest<kPlaceBlock, M>(a, in, p * a.along.stride, output, y + at,
                                  residual ? residual + at : nullptr, n - p);
}

// Chunks [begin, end) of the lines of the result, with scratch for the lines that one of them reads.
void exact_convolution_chunks(const ExactConvolutionArgs& a, int64_t begin, int64_t end, float* scratch) {
    const int64_t chunk = a.chunk, n_chunks = (a.along.n_out + chunk - 1) / chunk;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i % n_chunks * chunk, line = i / n_chunks % a.across.n_out;
        const int64_t batch = i / n_chunks / a.across.n_out;
        const int64_t n = a.along.n_out - first < chunk ? a.along.n_out - first : chunk;
        const int64_t span = places_of(a.along, n), start = first_place(a.along, first);
        // Places [inside_begin, inside_end) of the span are there.
        const int64_t inside_begin = start < 0 ? -start : 0;
        const int64_t inside_end = a.along.n_in - start < span ? a.along.n_in - start : span;
        ConvolutionLines in = {};
        for (int64_t tap = 0; tap < a.across.taps; tap++) {
            const int64_t from = first_place(a.across, line) + tap * a.across.dilation;
            if (from < 0 || from >= a.across.n_in) continue;
            float* to = scratch + tap * span * a.n_in;
            const float* x = a.x + ((batch * a.across.n_in + from) * a.along.n_in + start) * a.n_in;
            for (int64_t j = 0; j < inside_begin * a.n_in; j++) to[j] = 0;
            memcpy(to + inside_begin * a.n_in, x + inside_begin * a.n_in,
                   static_cast<size_t>((inside_end - inside_begin) * a.n_in) * sizeof(float));
            for (int64_t j = inside_end * a.n_in; j < span * a.n_in; j++) to[j] = 0;
            in.lines[tap] = to;
        }
        const int64_t at = ((batch * a.across.n_out + line) * a.along.n_out + first) * a.n_out;
        const float* residual = a.residual ? a.residual + at : nullptr;
        int64_t output = 0;
        for (; output + kOutputVectors * W <= a.n_out; output += kOutputVectors * W)
            convolve_chunk<kOutputVectors>(a, in, output, a.y + at, residual, n);
        for (; output < a.n_out; output += W) convolve_chunk<1>(a, in, output, a.y + at, residual, n);
    }
}

void scaled_relu(const float* x, const float* scale, const float* shift, int64_t n, float* y) {
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        const V v = Simd::fma(Simd::load(x + i), Simd::load(scale + i), Simd::load(shift + i));
        Simd::store(y + i, Simd::max(v, Simd::zero()));
    }
    for (; i < n; i++) {
        const float v = x[i] * scale[i] + shift[i];
        y[i] = v > 0 ? v : 0;
    }
}

}  // namespace
}  // namespace rustasr::kernels
