// Attention for many queries: the lanes of a vector are rows (queries), so that the scores need no
// transposition between the two products and the softmax no sums across lanes.
//
//   per tile of keys:     K, V -> scratch, as Dot wants them
//     per tile of rows:   S [key][row] = K Q^T    (Q is packed [d][row], already times scale * log2 e)
//                         P = exp2(S - max), l = l * alpha + sum P
//                         O [d][row] = O * alpha + V^T P
//   at the end            out[row][d] = O / l
//
// K and V elements are broadcast, each used for Simd::kVectors vectors of rows; Simd::kBlock of them share
// the loads of the row vectors. Included by the forms after their Simd.
#pragma once

#include "kernels/attention_rows.h"

namespace rustasr::kernels {
namespace {

using V = Simd::V;
constexpr int W = Simd::W;
constexpr int kBlock = Simd::kBlock;           // broadcast values of a micro-kernel
constexpr int kTileRows = Simd::kVectors * W;  // rows of a tile
constexpr int kTiles = 16;                     // most tiles of an item: what one conversion of K and V serves
constexpr int kTileKeys = 128;
static_assert(kTileKeys % kBlock == 0 && kBlock % 4 == 0, "whole blocks of keys");

// F32 products. Another Dot has the same members with its own packing.
struct FloatDot {
    // Q of a tile stays as it is: [D][rows].
    static void pack_queries(float*, int64_t, int64_t) {}
    // [key][round_up(D, 16)], one row
    template <Element kType>
    static RUSTASR_INLINE void pack_key(const char* row, int64_t dim, float* keys, int64_t key) {
        convert_as<kType>(row, dim, keys + key * round_up(dim, 16));
    }
    // [D / kBlock][key][kBlock], rows key and key + 1 (the second may lie behind the last key: zeros)
    static RUSTASR_INLINE void pack_values(const float* row0, const float* row1, int64_t dim, float* values,
                                           int64_t key) {
        for (int64_t d = 0; d < dim; d += kBlock) {
            float* dst = values + (d / kBlock * kTileKeys + key) * kBlock;
            for (int i = 0; i < kBlock; i++) dst[i] = row0[d + i];
            for (int i = 0; i < kBlock; i++) dst[kBlock + i] = row1[d + i];
        }
    }

    // scores[kBlock][N * W] of kBlock keys; best[N * W] becomes the greater of itself and them.
    template <int N>
    static RUSTASR_INLINE void scores(const float* q, const float* keys, int64_t key, int64_t dim,
                                      float* scores, float* best) {
        const int64_t stride = round_up(dim, 16);
        const float* k = keys + key * stride;
        V acc[kBlock][N];
        RUSTASR_UNROLL
        for (int i = 0; i < kBlock; i++) {
            RUSTASR_UNROLL
            for (int n = 0; n < N; n++) acc[i][n] = Simd::zero();
        }
        for (int64_t d = 0; d < dim; d++) {
            V qv[N];
            RUSTASR_UNROLL
            for (int n = 0; n < N; n++) qv[n] = Simd::load(q + d * N * W + n * W);
            RUSTASR_UNROLL
            for (int i = 0; i < kBlock; i++) {
                const V kv = Simd::set1(k[i * stride + d]);
                RUSTASR_UNROLL
                for (int n = 0; n < N; n++) acc[i][n] = Simd::fma(kv, qv[n], acc[i][n]);
            }
        }
        RUSTASR_UNROLL
        for (int n = 0; n < N; n++) {
            V m = Simd::load(best + n * W);
            RUSTASR_UNROLL
            for (int i = 0; i < kBlock; i++) {
                Simd::store(scores + (i * N + n) * W, acc[i][n]);
                m = Simd::max(m, acc[i][n]);
            }
            Simd::store(best + n * W, m);
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

    // out[kBlock][N * W] = out * alpha[N * W] + values^T weights
    template <int N>
    static RUSTASR_INLINE void accumulate(const float* weights, const float* values, int64_t n_keys,
                                          const float* alpha, float* out) {
        V acc[kBlock][N];
        RUSTASR_UNROLL
        for (int n = 0; n < N; n++) {
            const V a = Simd::load(alpha + n * W);
            RUSTASR_UNROLL
            for (int i = 0; i < kBlock; i++) acc[i][n] = Simd::mul(Simd::load(out + (i * N + n) * W), a);
        }
        for (int64_t j = 0; j < n_keys; j++) {
            V p[N];
            RUSTASR_UNROLL
            for (int n = 0; n < N; n++) p[n] = Simd::load(weights + (j * N + n) * W);
            RUSTASR_UNROLL
            for (int i = 0; i < kBlock; i++) {
                const V v = Simd::set1(values[j * kBlock + i]);
                RUSTASR_UNROLL
                for (int n = 0; n < N; n++) acc[i][n] = Simd::fma(v, p[n], acc[i][n]);
            }
        }
        RUSTASR_UNROLL
        for (int n = 0; n < N; n++) {
            RUSTASR_UNROLL
            for (int i = 0; i < kBlock; i++) Simd::store(out + (i * N + n) * W, acc[i][n]);
        }
    }
};

// The state of one tile of rows, in scratch.
struct RowTile {
    Row rows[kTileRows];
    float *q, *out, *best, *sum;  // [D][rows], [D][rows], [rows], [rows]
    int vectors;                  // vectors of rows in use
};

struct WideScratch {
    float *keys, *values, *scores, *line0, *line1, *alpha;
    RowTile tiles[kTiles];
};

// Carves `scratch`; with nullptr it only counts.
inline size_t lay_out(WideScratch* s, float* scratch, int64_t dim) {
    const int64_t padded = round_up(dim, 16);
    int64_t used = 0;
    const auto take = [scratch, &used](int64_t n) {
        const int64_t begin = used;
        used += round_up(n, 16);
        return scratch ? scratch + begin : nullptr;
    };
    s->keys = take(kTileKeys * padded);
    s->values = take(kTileKeys * padded);
    s->scores = take(kTileKeys * kTileRows);
    s->line0 = take(padded + 16);
    s->line1 = take(padded + 16);
    s->alpha = take(kTileRows);
    for (RowTile& tile : s->tiles) {
        tile.q = take(padded * kTileRows);
        tile.out = take(padded * kTileRows);
        tile.best = take(kTileRows);
        tile.sum = take(kTileRows);
    }
    return static_cast<size_t>(used) * sizeof(float);
}

// block[c] = factor * src[0 .. W - 1][begin + c] for up to W columns c.
template <Element kType>
inline void transpose_block(const char* const* src, int64_t begin, int64_t n, V factor, V* block) {
    const int64_t offset = begin * element_size(kType);
    for (int i = 0; i < W; i++) {
        block[i] = n >= W ? load_as<kType>(src[i] + offset) : load_part_as<kType>(src[i] + offset, n);
        block[i] = Simd::mul(block[i], factor);
    }
    Simd::transpose(block);
}

template <class Dot>
void load_queries(const AttentionArgs& a, const AttentionItem& item, int64_t first, RowTile& tile) {
    const int64_t n_rows = smaller(item.row_end - first, kTileRows);
    tile.vectors = static_cast<int>((n_rows + W - 1) / W);
    const int64_t width = tile.vectors * W;
    for (int64_t i = 0; i < width; i++) {  // lanes behind the last row repeat it
        tile.rows[i] = i < n_rows ? row_of(a, item, first + i) : tile.rows[n_rows - 1];
        tile.best[i] = -HUGE_VALF;
        tile.sum[i] = 0;
    }
    const V factor = Simd::set1(a.scale * kLog2E);
    for (int64_t n = 0; n < width; n += W) {
        const char* src[W];
        for (int i = 0; i < W; i++) src[i] = reinterpret_cast<const char*>(tile.rows[n + i].q);
        for (int64_t d = 0; d < a.head_dim; d += W) {
            const int64_t columns = smaller(W, a.head_dim - d);
            V block[W];
            transpose_block<Element::F32>(src, d, columns, factor, block);
            for (int64_t c = 0; c < columns; c++) Simd::store(tile.q + (d + c) * width + n, block[c]);
        }
    }
    memset(tile.out, 0, static_cast<size_t>(a.head_dim * width) * sizeof(float));
    Dot::pack_queries(tile.q, a.head_dim, width);
}

// K and V of keys [first, first + n) into scratch. Keys behind the last one repeat it, so that they do not
// move the maximum; their weights are never read.
template <class Dot, Element kType>
void load_keys_as(const AttentionArgs& a, const AttentionItem& item, int64_t first, int64_t n,
                  WideScratch& s) {
    const int64_t dim = a.head_dim;
    const char* k = at(a.k, first, item.kv_head, item.batch);
    for (int64_t j = 0; j < round_up(n, kBlock); j++) {
        Dot::template pack_key<kType>(k + smaller(j, n - 1) * static_cast<int64_t>(a.k.stride[0]), dim,
                                      s.keys, j);
    }
    const char* v = at(a.v, first, item.kv_head, item.batch);
    for (int64_t j = 0; j < n; j += 2, v += 2 * a.v.stride[0]) {
        convert_as<kType>(v, dim, s.line0);
        if (j + 1 < n) {
            convert_as<kType>(v + a.v.stride[0], dim, s.line1);
        } else {
            memset(s.line1, 0, static_cast<size_t>(dim) * sizeof(float));
        }
        Dot::pack_values(s.line0, s.line1, dim, s.values, j);
    }
}

template <class Dot>
void load_keys(const AttentionArgs& a, const AttentionItem& item, int64_t first, int64_t n, WideScratch& s) {
    switch (a.kv_type) {
        case Element::F32:
            return load_keys_as<Dot, Element::F32>(a, item, first, n, s);
        case Element::F16:
            return load_keys_as<Dot, Element::F16>(a, item, first, n, s);
        case Element::BF16:
            return load_keys_as<Dot, Element::BF16>(a, item, first, n, s);
    }
}

// scores += mask * log2 e, and best anew, over n keys.
template <Element kType, int N>
void add_mask_as(const RowTile& tile, int64_t first, int64_t n_keys, float* scores, float* best) {
    const V factor = Simd::set1(kLog2E);
    for (int n = 0; n < N; n++) {
        const char* src[W];
        for (int i = 0; i < W; i++) src[i] = tile.rows[n * W + i].mask;
        V m = Simd::load(tile.best + n * W);
        for (int64_t j = 0; j < n_keys; j += W) {
            const int64_t columns = smaller(W, n_keys - j);
            V block[W];
            transpose_block<kType>(src, first + j, columns, factor, block);
            for (int64_t c = 0; c < columns; c++) {
                float* s = scores + ((j + c) * N + n) * W;
                const V x = Simd::add(Simd::load(s), block[c]);
                Simd::store(s, x);
                m = Simd::max(m, x);
            }
        }
        Simd::store(best + n * W, m);
    }
}

template <class Dot, int N>
void attend_tile(const AttentionArgs& a, int64_t first, int64_t n_keys, WideScratch& s, RowTile& tile) {
    alignas(64) float best[N * W];
    memcpy(best, tile.best, sizeof(best));
    for (int64_t j = 0; j < n_keys; j += kBlock) {
        Dot::template scores<N>(tile.q, s.keys, j, a.head_dim, s.scores + j * N * W, best);
    }
    if (a.mask.data && a.mask_type == Element::F16) {
        add_mask_as<Element::F16, N>(tile, first, n_keys, s.scores, best);
    } else if (a.mask.data) {
        add_mask_as<Element::F32, N>(tile, first, n_keys, s.scores, best);
    }
    for (int n = 0; n < N; n++) {
        const V m = finite_maximum(Simd::load(best + n * W));
        const V alpha = Simd::exp2(Simd::sub(Simd::load(tile.best + n * W), m));
        const V sum = Dot::weights(s.scores + n * W, N * W, n_keys, m);
        Simd::store(tile.sum + n * W, Simd::fma(Simd::load(tile.sum + n * W), alpha, sum));
        Simd::store(tile.best + n * W, Simd::load(best + n * W));
        Simd::store(s.alpha + n * W, alpha);
    }
    for (int64_t d = 0; d < a.head_dim; d += kBlock) {
        Dot::template accumulate<N>(s.scores, s.values + d * kTileKeys, n_keys, s.alpha,
                                    tile.out + d * N * W);
    }
}

inline void store_rows(const AttentionArgs& a, int64_t n_rows, RowTile& tile) {
    const int64_t width = tile.vectors * W;
    for (int64_t n = 0; n < width; n += W) {
        const V share = Simd::div(Simd::set1(1.0f), Simd::load(tile.sum + n));
        const V some =
            Simd::select_greater(Simd::load(tile.best + n), Simd::set1(-HUGE_VALF), share, Simd::zero());
        for (int64_t d = 0; d < a.head_dim; d += W) {
            const int64_t columns = smaller(W, a.head_dim - d);
            V block[W];
            for (int64_t c = 0; c < W; c++) {
                block[c] =
                    c < columns ? Simd::mul(Simd::load(tile.out + (d + c) * width + n), some) : Simd::zero();
            }
            Simd::transpose(block);
            for (int64_t i = 0; i < smaller(W, n_rows - n); i++) {
                float* dst = tile.rows[n + i].out + d;
                if (columns == W) {
                    Simd::store(dst, block[i]);
                } else {
                    alignas(64) float part[W];
                    Simd::store(part, block[i]);
                    memcpy(dst, part, static_cast<size_t>(columns) * sizeof(float));
                }
            }
        }
    }
}

template <class Dot>
void attend_wide(const AttentionArgs& a, const AttentionItem& item, void* scratch) {
    WideScratch s;
    lay_out(&s, static_cast<float*>(scratch), a.head_dim);
    const int64_t n_rows = item.row_end - item.row_begin;
    const int n_tiles = static_cast<int>((n_rows + kTileRows - 1) / kTileRows);
    for (int i = 0; i < n_tiles; i++) load_queries<Dot>(a, item, item.row_begin + i * kTileRows, s.tiles[i]);
    for (int64_t first = 0; first < item.n_keys; first += kTileKeys) {
        const int64_t n_keys = smaller(kTileKeys, item.n_keys - first);
        load_keys<Dot>(a, item, first, n_keys, s);
        for (int i = 0; i < n_tiles; i++) {
            RowTile& tile = s.tiles[i];
            switch (tile.vectors) {
                case 1:
                    attend_tile<Dot, 1>(a, first, n_keys, s, tile);
                    break;
                case 2:
                    attend_tile<Dot, 2>(a, first, n_keys, s, tile);
                    break;
                default:
                    attend_tile<Dot, Simd::kVectors>(a, first, n_keys, s, tile);
                    break;
            }
        }
    }
    for (int i = 0; i < n_tiles; i++) store_rows(a, smaller(kTileRows, n_rows - i * kTileRows), s.tiles[i]);
}

inline size_t wide_scratch_bytes(int64_t head_dim) {
    WideScratch s;
    return lay_out(&s, nullptr, head_dim);
}

}  // namespace
}  // namespace rustasr::kernels
