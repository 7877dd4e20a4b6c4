// Rows of the operands as a form reads and writes them. Included by the forms after their Simd.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/attention_form.h"

namespace rustasr::kernels {
namespace {

RUSTASR_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
RUSTASR_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
RUSTASR_INLINE int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

RUSTASR_INLINE const char* at(const AttentionOperand& t, int64_t i1, int64_t i2, int64_t i3) {
    return t.data + i1 * static_cast<int64_t>(t.stride[0]) + i2 * static_cast<int64_t>(t.stride[1]) +
           i3 * static_cast<int64_t>(t.stride[2]);
}

struct Row {
    const float* q;    // [D]
    const char* mask;  // [Tk] or nullptr
    float* out;        // [D]
};

inline Row row_of(const AttentionArgs& a, const AttentionItem& item, int64_t r) {
    const AttentionSpan& span = item.span;
    const int64_t n = span.query_end - span.query_begin;
    const int64_t t = span.query_begin + r % n;
    const int64_t h = span.kv_head * (a.n_heads / a.n_kv_heads) + r / n;
    const int64_t b = span.batch;
    Row row;
    row.q = reinterpret_cast<const float*>(at(a.q, t, h, b));
    row.mask = a.mask.data ? at(a.mask, t, h % a.mask_heads, b % a.mask_batch) : nullptr;
    row.out = a.out + ((b * a.n_queries + t) * a.n_heads + h) * a.head_dim;
    return row;
}

constexpr int64_t element_size(Element e) { return e == Element::F32 ? 4 : 2; }

// W elements at p as floats.
template <Element kType>
RUSTASR_INLINE Simd::V load_as(const char* p) {
    if (kType == Element::F16) return Simd::load_f16(reinterpret_cast<const uint16_t*>(p));
    if (kType == Element::BF16) return Simd::load_bf16(reinterpret_cast<const uint16_t*>(p));
    return Simd::load(reinterpret_cast<const float*>(p));
}

// The first n <= W elements at p as floats, zeros behind them.
template <Element kType>
inline Simd::V load_part_as(const char* p, int64_t n) {
    alignas(64) char part[Simd::W * 4] = {};
    memcpy(part, p, static_cast<size_t>(n * element_size(kType)));
    return load_as<kType>(part);
}

// n elements at src as floats at dst, which has room for n rounded up to W; the rest is zeroed.
template <Element kType>
RUSTASR_INLINE void convert_as(const char* src, int64_t n, float* dst) {
    int64_t i = 0;
    for (; i + Simd::W <= n; i += Simd::W)
        Simd::store(dst + i, load_as<kType>(src + i * element_size(kType)));
    if (i < n) Simd::store(dst + i, load_part_as<kType>(src + i * element_size(kType), n - i));
}

// Pieces of a block of scratch; without a block it only counts.
struct Carver {
    float* block;
    int64_t used;
    float* take(int64_t n) {
        const int64_t begin = used;
        used += round_up(n, 16);
        return block ? block + begin : nullptr;
    }
};

// m where it is finite; 0 where every key so far is masked, so that their weights become exp2(-inf - 0), not
// NaN.
RUSTASR_INLINE Simd::V finite_maximum(Simd::V m) {
    return Simd::select_greater(m, Simd::set1(-HUGE_VALF), m, Simd::zero());
}

}  // namespace
}  // namespace rustasr::kernels
