// Attention for few queries (a decoder's step): K and V are read once, straight from where they lie, and the
// lanes of a vector are elements of a head. Always in F32: the memory is the limit, not the arithmetic.
//
//   per tile of keys:     scores [row][key] = <q, k>, partial sums of W keys reduced together
//                         softmax along the row, then out[row] = out * alpha + sum_key weight * v
//
// Included by the forms after their Simd.
#pragma once

#include <type_traits>

#include "kernels/attention_rows.h"

namespace rustasr::kernels {
namespace {
namespace narrow {

using V = Simd::V;
constexpr int W = Simd::W;
constexpr int kMaxRows = 8;
constexpr int kTileKeys = 256;
constexpr int kGroup = 4;  // keys of a micro-kernel
static_assert(kTileKeys % W == 0 && W % kGroup == 0, "whole groups of keys");

struct Scratch {
    float *q, *out;        // [kMaxRows][padded D]
    float* scores;         // [kMaxRows][kTileKeys]
    float *keys, *values;  // [kTileKeys][padded D], when D is no multiple of W
};

inline size_t lay_out(Scratch* s, float* scratch, int64_t dim) {
    const int64_t padded = round_up(dim, 16);
    Carver carver = {scratch, 0};
    s->q = carver.take(kMaxRows * padded);
    s->out = carver.take(kMaxRows * padded);
    s->scores = carver.take(kMaxRows * kTileKeys);
    s->keys = carver.take(kTileKeys * padded);
    s->values = carver.take(kTileKeys * padded);
    return static_cast<size_t>(carver.used) * sizeof(float);
}

// Keys or values of one tile: `n` rows of `stride` bytes, of `vectors` whole vectors each.
struct Lines {
    const char* data;
    int64_t stride, n, vectors;
};

// Rows may lie far apart, a few cache lines each, and the processor then does not guess the next.
RUSTASR_INLINE void fetch(const Lines& lines, int64_t begin, int64_t end, int64_t nbytes) {
#if defined(__GNUC__)
    for (int64_t j = begin; j < smaller(end, lines.n); j++) {
        for (int64_t b = 0; b < nbytes; b += 64) __builtin_prefetch(lines.data + j * lines.stride + b);
    }
#else
    (void)lines, (void)begin, (void)end, (void)nbytes;
#endif
}

// scores[R][kTileKeys] = <q[R], keys>; q rows are `padded` floats apart. Scores behind the last key are
// undefined. `values` of the same keys are asked for meanwhile.
template <Element kType, int R>
void dot_products(const float* q, int64_t padded, const Lines& keys, const Lines& values, float* scores) {
    constexpr int64_t kStep = W * element_size(kType);
    for (int64_t first = 0; first < keys.n; first += W) {
        fetch(keys, first + W, first + 2 * W, keys.vectors * kStep);
        fetch(values, first, first + W, keys.vectors * kStep);
        V partial[R][W];
        RUSTASR_UNROLL
        for (int g = 0; g < W; g += kGroup) {
            const char* k[kGroup];
            RUSTASR_UNROLL
            for (int i = 0; i < kGroup; i++)
                k[i] = keys.data + smaller(first + g + i, keys.n - 1) * keys.stride;
            V acc[R][kGroup];
            RUSTASR_UNROLL
            for (int r = 0; r < R; r++) {
                RUSTASR_UNROLL
                for (int i = 0; i < kGroup; i++) acc[r][i] = Simd::zero();
            }
            for (int64_t c = 0; c < keys.vectors; c++) {
                V kv[kGroup];
                RUSTASR_UNROLL
                for (int i = 0; i < kGroup; i++) kv[i] = load_as<kType>(k[i] + c * kStep);
                RUSTASR_UNROLL
                for (int r = 0; r < R; r++) {
                    const V qv = Simd::load(q + r * padded + c * W);
                    RUSTASR_UNROLL
                    for (int i = 0; i < kGroup; i++) acc[r][i] = Simd::fma(kv[i], qv, acc[r][i]);
                }
            }
            RUSTASR_UNROLL
            for (int r = 0; r < R; r++) {
                RUSTASR_UNROLL
                for (int i = 0; i < kGroup; i++) partial[r][g + i] = acc[r][i];
            }
        }
        RUSTASR_UNROLL
        for (int r = 0; r < R; r++) Simd::store(scores + r * kTileKeys + first, Simd::sums(partial[r]));
    }
}

// out[R] += weights[R] * values, for K vectors of the row from vector c on.
template <Element kType, int R, int K>
RUSTASR_INLINE void weighted_columns(const float* weights, const Lines& values, int64_t c, float* out,
                                     int64_t padded) {
    constexpr int64_t kStep = W * element_size(kType);
    V acc[R][K];
    RUSTASR_UNROLL
    for (int r = 0; r < R; r++) {
        RUSTASR_UNROLL
        for (int i = 0; i < K; i++) acc[r][i] = Simd::load(out + r * padded + (c + i) * W);
    }
    for (int64_t j = 0; j < values.n; j++) {
        V v[K];
        RUSTASR_UNROLL
        for (int i = 0; i < K; i++) v[i] = load_as<kType>(values.data + j * values.stride + (c + i) * kStep);
        RUSTASR_UNROLL
        for (int r = 0; r < R; r++) {
            const V p = Simd::set1(weights[r * kTileKeys + j]);
            RUSTASR_UNROLL
            for (int i = 0; i < K; i++) acc[r][i] = Simd::fma(p, v[i], acc[r][i]);
        }
    }
    RUSTASR_UNROLL
    for (int r = 0; r < R; r++) {
        RUSTASR_UNROLL
        for (int i = 0; i < K; i++) Simd::store(out + r * padded + (c + i) * W, acc[r][i]);
    }
}

template <Element kType, int R>
void weighted_sum(const float* weights, const Lines& values, float* out, int64_t padded) {
    constexpr int K = Simd::kNarrowVectors;
    int64_t c = 0;
    for (; c + K <= values.vectors; c += K) weighted_columns<kType, R, K>(weights, values, c, out, padded);
    for (; c < values.vectors; c++) weighted_columns<kType, R, 1>(weights, values, c, out, padded);
}

// scores[n] += mask[first + ...] * log2 e
template <Element kType>
void add_mask(const char* mask, int64_t n, float* scores) {
    const V factor = Simd::set1(kLog2E);
    for (int64_t j = 0; j < n; j += W) {
        const char* p = mask + j * element_size(kType);
        const V m = j + W <= n ? load_as<kType>(p) : load_part_as<kType>(p, n - j);
        Simd::store(scores + j, Simd::fma(m, factor, Simd::load(scores + j)));
    }
}

// The running softmax of one row.
struct RowState {
    Row row;
    KeyRange keys;
    float best, sum;
};

// -inf where the row does not see one of the n keys from `first` on.
inline void hide_keys(const RowState& state, int64_t first, int64_t n, float* scores) {
    for (int64_t j = 0; j < smaller(n, state.keys.begin - first); j++) scores[j] = -HUGE_VALF;
    for (int64_t j = greater(0, state.keys.end - first); j < n; j++) scores[j] = -HUGE_VALF;
}

// scores[n] -> weights; the row's maximum and sum move on. Returns the factor of what was summed before.
inline float softmax_step(int64_t n, float* scores, RowState& state) {
    for (int64_t j = n; j < round_up(n, W); j++) scores[j] = -HUGE_VALF;
    V m = Simd::set1(state.best);
    for (int64_t j = 0; j < n; j += W) m = Simd::max(m, Simd::load(scores + j));
    const float best = Simd::maximum(m);
    const V shift = finite_maximum(Simd::set1(best));
    V sum = Simd::zero();
    for (int64_t j = 0; j < n; j += W) {
        const V p = Simd::exp2(Simd::sub(Simd::load(scores + j), shift));
        Simd::store(scores + j, p);
        sum = Simd::add(sum, p);
    }
    alignas(64) float alpha[W];
    Simd::store(alpha, Simd::exp2(Simd::sub(Simd::set1(state.best), shift)));
    state.sum = state.sum * alpha[0] + Simd::sum(sum);
    state.best = best;
    return alpha[0];
}

// Calls work(first row, their number as a type) for the rows, many at a time, then two, then one.
template <class Work>
RUSTASR_INLINE void for_rows(int n_rows, const Work& work) {
    int r = 0;
    for (; r + Simd::kNarrowRows <= n_rows; r += Simd::kNarrowRows)
        work(r, std::integral_constant<int, Simd::kNarrowRows>());
    for (; r + 2 <= n_rows; r += 2) work(r, std::integral_constant<int, 2>());
    for (; r < n_rows; r++) work(r, std::integral_constant<int, 1>());
}

template <Element kType>
void attend_tile(const AttentionArgs& a, int64_t first, const Lines& keys, const Lines& values, int n_rows,
                 const Scratch& s, RowState* states) {
    const int64_t padded = round_up(a.head_dim, 16);
    // Pairs: what a step of one hypothesis makes of the queries that share a K/V head.
    for_rows(n_rows, [&](int r, auto count) {
        dot_products<kType, decltype(count)::value>(s.q + r * padded, padded, keys, values,
                                                    s.scores + r * kTileKeys);
    });
    for (int r = 0; r < n_rows; r++) {
        float* scores = s.scores + r * kTileKeys;
        if (a.mask.data && a.mask_type == Element::F16) {
            add_mask<Element::F16>(states[r].row.mask + first * 2, keys.n, scores);
        } else if (a.mask.data) {
            add_mask<Element::F32>(states[r].row.mask + first * 4, keys.n, scores);
        }
        hide_keys(states[r], first, keys.n, scores);
        const V alpha = Simd::set1(softmax_step(keys.n, scores, states[r]));
        float* out = s.out + r * padded;
        for (int64_t d = 0; d < padded; d += W) Simd::store(out + d, Simd::mul(Simd::load(out + d), alpha));
    }
    for_rows(n_rows, [&](int r, auto count) {
        weighted_sum<kType, decltype(count)::value>(s.scores + r * kTileKeys, values, s.out + r * padded,
                                                    padded);
    });
}

// Rows of K or V from key `first` on: in place when they are whole vectors, else converted and padded in
// `copy`.
template <Element kType>
Lines lines_of(const AttentionArgs& a, const AttentionOperand& t, const AttentionSpan& span, int64_t first,
               int64_t n, float* copy) {
    const char* rows = at(t, first, span.kv_head, span.batch);
    const int64_t stride = static_cast<int64_t>(t.stride[0]);
    if (a.head_dim % W == 0) return {rows, stride, n, a.head_dim / W};
    const int64_t padded = round_up(a.head_dim, W);
    for (int64_t j = 0; j < n; j++) convert_as<kType>(rows + j * stride, a.head_dim, copy + j * padded);
    return {reinterpret_cast<const char*>(copy), padded * 4, n, padded / W};
}

template <Element kType>
void attend_keys(const AttentionArgs& a, const AttentionItem& item, int n_rows, const Scratch& s,
                 RowState* states) {
    KeyRange any = {item.span.key_end, item.span.key_begin};
    for (int r = 0; r < n_rows; r++) {
        any = {smaller(any.begin, states[r].keys.begin), greater(any.end, states[r].keys.end)};
    }
    for (int64_t first = any.begin; first < any.end; first += kTileKeys) {
        const int64_t n = smaller(kTileKeys, any.end - first);
        const Lines keys = lines_of<kType>(a, a.k, item.span, first, n, s.keys);
        const Lines values = lines_of<kType>(a, a.v, item.span, first, n, s.values);
        if (a.head_dim % W == 0) {
            attend_tile<kType>(a, first, keys, values, n_rows, s, states);
        } else {
            attend_tile<Element::F32>(a, first, keys, values, n_rows, s, states);
        }
    }
}

void attend(const AttentionArgs& a, const AttentionItem& item, void* scratch) {
    Scratch s;
    lay_out(&s, static_cast<float*>(scratch), a.head_dim);
    const int64_t padded = round_up(a.head_dim, 16);
    const int n_rows = static_cast<int>(item.row_end - item.row_begin);
    const int64_t n_queries = item.span.query_end - item.span.query_begin;
    RowState states[kMaxRows];
    memset(s.q, 0, static_cast<size_t>(n_rows * padded) * sizeof(float));
    memset(s.out, 0, static_cast<size_t>(n_rows * padded) * sizeof(float));
    for (int r = 0; r < n_rows; r++) {
        const int64_t query = item.span.query_begin + (item.row_begin + r) % n_queries;
        states[r] = {row_of(a, item, item.row_begin + r), keys_of(a, item.span, query), -HUGE_VALF, 0.0f};
        for (int64_t d = 0; d < a.head_dim; d++)
            s.q[r * padded + d] = states[r].row.q[d] * (a.scale * kLog2E);
    }
    switch (a.kv_type) {
        case Element::F32:
            attend_keys<Element::F32>(a, item, n_rows, s, states);
            break;
        case Element::F16:
            attend_keys<Element::F16>(a, item, n_rows, s, states);
            break;
        case Element::BF16:
            attend_keys<Element::BF16>(a, item, n_rows, s, states);
            break;
    }
    for (int r = 0; r < n_rows; r++) {
        const float factor = states[r].best > -HUGE_VALF ? 1.0f / states[r].sum : 0.0f;
        for (int64_t d = 0; d < a.head_dim; d++) states[r].row.out[d] = s.out[r * padded + d] * factor;
    }
}

inline size_t scratch_bytes(int64_t head_dim) {
    Scratch s;
    return lay_out(&s, nullptr, head_dim);
}

}  // namespace narrow
}  // namespace
}  // namespace rustasr::kernels
