// The bodies of the recurrent kernels. Included by the forms after their Simd.
#pragma once

#include <cstring>

#include "kernels/recurrent_form.h"
#include "kernels/simd_part.h"

namespace rustasr::kernels {
namespace {

using V = Simd::V;
constexpr int W = Simd::W;
// Columns that share one pass over four rows of weights: as many as leave the sums in registers, of which
// AVX2 has sixteen.
constexpr int kMostColumns = W == 8 ? 3 : 4;

struct Half {
    uint16_t bits;
};
struct Brain {
    uint16_t bits;
};

RUSTASR_INLINE V load(const float* p) { return Simd::load(p); }
RUSTASR_INLINE V load(const Half* p) { return Simd::load_f16(&p->bits); }
RUSTASR_INLINE V load(const Brain* p) { return Simd::load_bf16(&p->bits); }

template <class T>
RUSTASR_INLINE V load_end(const T* p, int64_t n) {
    alignas(64) T part[W] = {};
    memcpy(part, p, static_cast<size_t>(n) * sizeof(T));
    return load(part);
}

RUSTASR_INLINE void prefetch(const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);
#else
    (void)p;
#endif
}

// sums[r * N + i] += row r of w times column i of x, in lanes. The weights come from memory, which answers a
// seventh faster when what lies `ahead` is asked for meanwhile.
template <int R, int N, class T>
RUSTASR_INLINE void accumulate(const T* w, int64_t row_stride, int64_t ahead, int64_t k, const float* x,
                               int64_t x_stride, V* sums) {
    constexpr int64_t kLine = 64 / sizeof(T);
    int64_t j = 0;
    for (; j + W <= k; j += W) {
        V columns[N];
        RUSTASR_UNROLL
        for (int i = 0; i < N; i++) columns[i] = Simd::load(x + i * x_stride + j);
        RUSTASR_UNROLL
        for (int r = 0; r < R; r++) {
            if (j % kLine == 0) prefetch(w + r * row_stride + j + ahead);
            const V row = load(w + r * row_stride + j);
            RUSTASR_UNROLL
            for (int i = 0; i < N; i++) sums[r * N + i] = Simd::fma(row, columns[i], sums[r * N + i]);
        }
    }
    if (j == k) return;
    for (int r = 0; r < R; r++) {
        const V row = load_end(w + r * row_stride + j, k - j);
        for (int i = 0; i < N; i++) {
            const V column = load_part(x + i * x_stride + j, k - j, 0.0f);
            sums[r * N + i] = Simd::fma(row, column, sums[r * N + i]);
        }
    }
}

// Adds up the lanes of n vectors.
template <int n>
RUSTASR_INLINE void reduce(const V* sums, float* out) {
    constexpr int kGroups = (n + W - 1) / W;
    alignas(64) float all[kGroups * W];
    RUSTASR_UNROLL
    for (int g = 0; g < kGroups; g++) {
        V group[W];
        RUSTASR_UNROLL
        for (int i = 0; i < W; i++) group[i] = g * W + i < n ? sums[g * W + i] : Simd::zero();
        Simd::store(all + g * W, Simd::sums(group));
    }
    memcpy(out, all, n * sizeof(float));
}

// Calls block<N>(first column) until all m columns are done.
template <class Block>
RUSTASR_INLINE void for_columns(int64_t m, const Block& block) {
    int64_t i = 0;
    if constexpr (kMostColumns == 4) {
        for (; i + 4 <= m; i += 4) block.template operator()<4>(i);
    }
    for (; i + 3 <= m; i += 3) block.template operator()<3>(i);
    if (i + 2 <= m) {
        block.template operator()<2>(i);
        i += 2;
    }
    if (i < m) block.template operator()<1>(i);
}

template <int R, class T>
struct LinearBlock {
    const LinearTask& task;
    int64_t row;

    template <int N>
    RUSTASR_INLINE void operator()(int64_t column) const {
        V sums[R * N];
        for (V& s : sums) s = Simd::zero();
        accumulate<R, N>(static_cast<const T*>(task.weight) + row * task.k, task.k, 2 * R * task.k, task.k,
                         task.x.data + column * task.x.stride, task.x.stride, sums);
        float out[R * N];
        reduce<R * N>(sums, out);
        for (int i = 0; i < N; i++) {
            float* y = task.y + (column + i) * task.y_stride + row;
            for (int r = 0; r < R; r++) y[r] = out[r * N + i] + task.bias[row + r];
        }
    }
};

template <class T>
void linear_rows(const LinearTask& task, int64_t begin, int64_t end) {
    int64_t row = begin;
    for (; row + 4 <= end; row += 4) for_columns(task.m, LinearBlock<4, T>{task, row});
    for (; row < end; row++) for_columns(task.m, LinearBlock<1, T>{task, row});
}

// The four gates of a unit before their activation, without the bias.
template <class T>
struct GateBlock {
    const LstmTask& task;
    int64_t unit;

    template <int N>
    RUSTASR_INLINE void operator()(int64_t column) const {
        V sums[4 * N];
        for (V& s : sums) s = Simd::zero();
        const T* w = static_cast<const T*>(task.weight) + unit * (task.k + task.p);
        const int64_t row_stride = task.p * (task.k + task.p), ahead = 2 * (task.k + task.p);
        accumulate<4, N>(w, row_stride, ahead, task.k, task.x.data + column * task.x.stride, task.x.stride,
                         sums);
        accumulate<4, N>(w + task.k, row_stride, ahead, task.p, task.state.data + column * task.state.stride,
                         task.state.stride, sums);
        float out[4 * N];
        reduce<4 * N>(sums, out);
        for (int i = 0; i < N; i++) {
            float* gates = task.y + (column + i) * task.y_stride + 2 * task.p + unit;
            for (int gate = 0; gate < 4; gate++) gates[gate * task.p] = out[gate * N + i];
        }
    }
};

// e^-|x|
RUSTASR_INLINE V decay(V x) {
    const V size = Simd::max(x, Simd::sub(Simd::zero(), x));
    return Simd::exp2(Simd::mul(size, Simd::set1(-kLog2E)));
}

// 1 / (1 + e^-x)
RUSTASR_INLINE V sigmoid(V x) {
    const V one = Simd::set1(1.0f), t = decay(x);
    return Simd::div(Simd::select_greater(x, Simd::zero(), one, t), Simd::add(one, t));
}

RUSTASR_INLINE V tanh(V x) {
    const V one = Simd::set1(1.0f), t = decay(Simd::add(x, x));
    const V size = Simd::div(Simd::sub(one, t), Simd::add(one, t));
    return Simd::select_greater(x, Simd::zero(), size, Simd::sub(Simd::zero(), size));
}

// c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c')
template <class Load, class Store>
RUSTASR_INLINE void cell(const float* gates, const float* bias, int64_t p, const float* c, float* h_next,
                         float* c_next, const Load& read, const Store& keep) {
    const V i = sigmoid(Simd::add(read(gates), read(bias)));
    const V f = sigmoid(Simd::add(read(gates + p), read(bias + p)));
    const V g = tanh(Simd::add(read(gates + 2 * p), read(bias + 2 * p)));
    const V o = sigmoid(Simd::add(read(gates + 3 * p), read(bias + 3 * p)));
    const V next = Simd::fma(f, read(c), Simd::mul(i, g));
    keep(c_next, next);
    keep(h_next, Simd::mul(o, tanh(next)));
}

template <class T>
void lstm_units(const LstmTask& task, int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; unit++) for_columns(task.m, GateBlock<T>{task, unit});
    const int64_t p = task.p;
    for (int64_t column = 0; column < task.m; column++) {
        float* y = task.y + column * task.y_stride;
        const float* c = task.state.data + column * task.state.stride + p;
        const float* bias = task.bias.data + column * task.bias.stride;
        int64_t j = begin;
        for (; j + W <= end; j += W) {
            cell(
                y + 2 * p + j, bias + j, p, c + j, y + j, y + p + j,
                [](const float* at) { return Simd::load(at); }, [](float* at, V v) { Simd::store(at, v); });
        }
        if (j == end) continue;
        const int64_t n = end - j;
        cell(
            y + 2 * p + j, bias + j, p, c + j, y + j, y + p + j,
            [n](const float* at) { return load_part(at, n, 0.0f); },
            [n](float* at, V v) { store_part(at, n, v); });
    }
}

void linear(const LinearTask& task, int64_t begin, int64_t end) {
    if (task.type == GGML_TYPE_F16) return linear_rows<Half>(task, begin, end);
    if (task.type == GGML_TYPE_BF16) return linear_rows<Brain>(task, begin, end);
    linear_rows<float>(task, begin, end);
}

void lstm_step(const LstmTask& task, int64_t begin, int64_t end) {
    if (task.type == GGML_TYPE_F16) return lstm_units<Half>(task, begin, end);
    if (task.type == GGML_TYPE_BF16) return lstm_units<Brain>(task, begin, end);
    lstm_units<float>(task, begin, end);
}

}  // namespace
}  // namespace rustasr::kernels
