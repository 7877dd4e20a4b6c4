// The two products of a tile of attention, each over a Product: how its operands are packed and multiplied.
//
// A lane of a packed operand holds kPair elements of the dimension that is summed over: 1 in F32, 2 in BF16
// (attention_avx512bf16.cpp). Elements of one operand (keys, values) are broadcast, each used for N vectors
// of rows of the other; kBlock of them share the loads of the row vectors. Included by the forms after their
// Simd.
#pragma once

#include "kernels/attention_rows.h"

namespace rustasr::kernels {
namespace {

using V = Simd::V;
constexpr int W = Simd::W;
constexpr int kBlock = Simd::kBlock;           // broadcast values of a micro-kernel
constexpr int kTileRows = Simd::kVectors * W;  // rows of a tile
constexpr int kTileKeys = 144;                 // keys of a tile

struct FloatProduct {
    static constexpr int kPair = 1;

    static RUSTASR_INLINE V madd(V a, V b, V sum) { return Simd::fma(a, b, sum); }

    // Rows [dim][width] as they are packed, in place.
    static void pack_rows(float*, int64_t, int64_t) {}

    // One row to be broadcast.
    template <Element kType>
    static RUSTASR_INLINE void pack_broadcast(const char* row, int64_t dim, float* packed) {
        convert_as<kType>(row, dim, packed);
    }

    // [dim / kBlock][key][kBlock], rows key and key + 1 (the second may lie behind the last key: zeros)
    static RUSTASR_INLINE void pack_values(const float* row0, const float* row1, int64_t dim, float* values,
                                           int64_t key) {
        for (int64_t d = 0; d < dim; d += kBlock) {
            float* dst = values + d * kTileKeys + key * kBlock;
            for (int i = 0; i < kBlock; i++) dst[i] = row0[d + i];
            for (int i = 0; i < kBlock; i++) dst[kBlock + i] = row1[d + i];
        }
    }

    // scores [n_keys][stride] of W rows become weights exp2(score - best), in place; the result is their sum.
    static RUSTASR_INLINE V weights(float* scores, int64_t stride, int64_t n_keys, V best) {
        V sum0 = Simd::zero(), sum1 = Simd::zero();
        int64_t j = 0;
        for (; j + 2 <= n_keys; j += 2) {
            float* s = scores + j * stride;
            const V p0 = Simd::exp2(Simd::sub(Simd::load(s), best));
            const V p1 = Simd::exp2(Simd::sub(Simd::load(s + stride), best));
            Simd::store(s, p0);
            Simd::store(s + stride, p1);
            sum0 = Simd::add(sum0, p0);
            sum1 = Simd::add(sum1, p1);
        }
        if (j < n_keys) {
            const V p = Simd::exp2(Simd::sub(Simd::load(scores + j * stride), best));
            Simd::store(scores + j * stride, p);
            sum0 = Simd::add(sum0, p);
        }
        return Simd::add(sum0, sum1);
    }
};

// Floats from one packed row of broadcast elements to the next.
template <class Product>
RUSTASR_INLINE int64_t broadcast_stride(int64_t dim) {
    return round_up(dim, 16) / Product::kPair;
}

// products[kBlock][N] of kBlock broadcast rows and N vectors of rows, the one at `rows[n]` with `stride`
// floats from one packed element to the next.
template <class Product, int N>
RUSTASR_INLINE void multiply(const float* const (&rows)[N], int64_t stride, const float* broadcast,
                             int64_t dim, V (&products)[kBlock][N]) {
    const int64_t broadcast_step = broadcast_stride<Product>(dim);
    RUSTASR_UNROLL
    for (int i = 0; i < kBlock; i++) {
        RUSTASR_UNROLL
        for (int n = 0; n < N; n++) products[i][n] = Simd::zero();
    }
    for (int64_t d = 0; d < dim / Product::kPair; d++) {
        V row[N];
        RUSTASR_UNROLL
        for (int n = 0; n < N; n++) row[n] = Simd::load(rows[n] + d * stride);
        RUSTASR_UNROLL
        for (int i = 0; i < kBlock; i++) {
            const V x = Simd::set1(broadcast[i * broadcast_step + d]);
            RUSTASR_UNROLL
            for (int n = 0; n < N; n++) products[i][n] = Product::madd(row[n], x, products[i][n]);
        }
    }
}

// scores[kBlock][N * W] of kBlock keys; best[N * W] becomes the greater of itself and them.
template <class Product, int N>
RUSTASR_INLINE void score_keys(const float* q, const float* keys, int64_t dim, float* scores, float* best) {
    const float* rows[N];
    for (int n = 0; n < N; n++) rows[n] = q + n * W;
    V products[kBlock][N];
    multiply<Product, N>(rows, N * W, keys, dim, products);
    RUSTASR_UNROLL
    for (int n = 0; n < N; n++) {
        V m = Simd::load(best + n * W);
        RUSTASR_UNROLL
        for (int i = 0; i < kBlock; i++) {
            Simd::store(scores + (i * N + n) * W, products[i][n]);
            m = Simd::max(m, products[i][n]);
        }
        Simd::store(best + n * W, m);
    }
}

// out[kBlock][N * W] = out * alpha[N * W] + values^T weights, over kBlock elements of the head
template <class Product, int N>
RUSTASR_INLINE void add_values(const float* weights, const float* values, int64_t n_keys, const float* alpha,
                               float* out) {
    V sum[kBlock][N];
    RUSTASR_UNROLL
    for (int n = 0; n < N; n++) {
        const V a = Simd::load(alpha + n * W);
        RUSTASR_UNROLL
        for (int i = 0; i < kBlock; i++) sum[i][n] = Simd::mul(Simd::load(out + (i * N + n) * W), a);
    }
    for (int64_t j = 0; j < (n_keys + Product::kPair - 1) / Product::kPair; j++) {
        V p[N];
        RUSTASR_UNROLL
        for (int n = 0; n < N; n++) p[n] = Simd::load(weights + (j * N + n) * W);
        RUSTASR_UNROLL
        for (int i = 0; i < kBlock; i++) {
            const V v = Simd::set1(values[j * kBlock + i]);
            RUSTASR_UNROLL
            for (int n = 0; n < N; n++) sum[i][n] = Product::madd(p[n], v, sum[i][n]);
        }
    }
    RUSTASR_UNROLL
    for (int n = 0; n < N; n++) {
        RUSTASR_UNROLL
        for (int i = 0; i < kBlock; i++) Simd::store(out + (i * N + n) * W, sum[i][n]);
    }
}

}  // namespace
}  // namespace rustasr::kernels
