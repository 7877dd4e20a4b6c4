// Attention for many queries: the lanes of a vector are rows (queries), so that the scores need no
// transposition between the two products and the softmax no sums across lanes.
//
//   per tile of keys:     K, V -> scratch, as the products want them
//     per tile of rows:   S [key][row] = K Q^T    (Q is packed [d][row], already times scale * log2 e)
//                         S += relative positions, mask; -inf where a row does not see a key
//                         P = exp2(S - max), l = l * alpha + sum P
//                         O [d][row] = O * alpha + V^T P
//   at the end            out[row][d] = O / l
//
// Included by the forms after their Simd.
#pragma once

#include "kernels/attention_positions.h"
#include "kernels/attention_products.h"

namespace rustasr::kernels {
namespace {

struct WideScratch {
    float *keys, *values, *scores, *line0, *line1, *alpha;
    PositionScratch positions;
    RowTile tiles[kTiles];
};

// Carves `scratch`; with nullptr it only counts.
inline size_t lay_out(WideScratch* s, float* scratch, int64_t dim, bool positions) {
    const int64_t padded = round_up(dim, 16);
    Carver carver = {scratch, 0};
    s->keys = carver.take(kTileKeys * padded);
    s->values = carver.take(kTileKeys * padded);
    s->scores = carver.take(kTileKeys * kTileRows);
    s->line0 = carver.take(padded + 16);
    s->line1 = carver.take(padded + 16);
    s->alpha = carver.take(kTileRows);
    if (positions) lay_out(s->positions, carver, padded);
    for (RowTile& tile : s->tiles) {
        tile.q = carver.take(padded * kTileRows);
        tile.out = carver.take(padded * kTileRows);
        tile.best = carver.take(kTileRows);
        tile.sum = carver.take(kTileRows);
        tile.by_distance = positions ? carver.take(padded * round_up(kTileRows, kBlock)) : nullptr;
    }
    return static_cast<size_t>(carver.used) * sizeof(float);
}

inline void load_ranges(const AttentionArgs& a, const AttentionItem& item, int64_t first, int64_t n_rows,
                        RowTile& tile) {
    const int64_t n = item.span.query_end - item.span.query_begin;
    tile.any = {item.span.key_end, item.span.key_begin};
    tile.all = {item.span.key_begin, item.span.key_end};
    for (int64_t i = 0; i < tile.vectors * W; i++) {
        const int64_t row = first + smaller(i, n_rows - 1);
        const KeyRange keys = keys_of(a, item.span, item.span.query_begin + row % n);
        tile.begin[i] = static_cast<float>(keys.begin);
        tile.end[i] = static_cast<float>(keys.end);
        tile.all = {greater(tile.all.begin, keys.begin), smaller(tile.all.end, keys.end)};
        if (keys.begin == keys.end) continue;
        tile.any = {smaller(tile.any.begin, keys.begin), greater(tile.any.end, keys.end)};
    }
}

template <class Score>
void load_queries(const AttentionArgs& a, const AttentionItem& item, int64_t first, RowTile& tile) {
    const int64_t n_rows = smaller(item.row_end - first, kTileRows);
    tile.vectors = static_cast<int>((n_rows + W - 1) / W);
    const int64_t width = tile.vectors * W;
    for (int64_t i = 0; i < width; i++) {  // lanes behind the last row repeat it
        tile.rows[i] = i < n_rows ? row_of(a, item, first + i) : tile.rows[n_rows - 1];
        tile.best[i] = -HUGE_VALF;
        tile.sum[i] = 0;
    }
    load_ranges(a, item, first, n_rows, tile);
    const float* bias = a.content_bias ? a.content_bias + item.span.kv_head * a.head_dim : nullptr;
    const V factor = Simd::set1(a.scale * kLog2E);
    for (int64_t n = 0; n < width; n += W) {
        const char* src[W];
        for (int i = 0; i < W; i++) src[i] = reinterpret_cast<const char*>(tile.rows[n + i].q);
        for (int64_t d = 0; d < a.head_dim; d += W) {
            const int64_t columns = smaller(W, a.head_dim - d);
            V block[W];
            transpose_block<Element::F32>(src, d, columns, block);
            for (int64_t c = 0; c < columns; c++) {
                const V x = bias ? Simd::add(block[c], Simd::set1(bias[d + c])) : block[c];
                Simd::store(tile.q + (d + c) * width + n, Simd::mul(x, factor));
            }
        }
    }
    memset(tile.out, 0, static_cast<size_t>(a.head_dim * width) * sizeof(float));
    Score::pack_rows(tile.q, a.head_dim, width);
}

// K and V of keys [first, first + n) into scratch. Keys behind the last one repeat it, so that they do not
// move the maximum; their weights are never read.
template <class Score, class Value, Element kType>
void load_keys_as(const AttentionArgs& a, const AttentionSpan& span, int64_t first, int64_t n,
                  WideScratch& s) {
    const int64_t dim = a.head_dim;
    const char* k = at(a.k, first, span.kv_head, span.batch);
    for (int64_t j = 0; j < round_up(n, kBlock); j++) {
        const char* row = k + smaller(j, n - 1) * static_cast<int64_t>(a.k.stride[0]);
        Score::template pack_broadcast<kType>(row, dim, s.keys + j * broadcast_stride<Score>(dim));
    }
    const char* v = at(a.v, first, span.kv_head, span.batch);
    for (int64_t j = 0; j < n; j += 2, v += 2 * a.v.stride[0]) {
        convert_as<kType>(v, dim, s.line0);
        if (j + 1 < n) {
            convert_as<kType>(v + a.v.stride[0], dim, s.line1);
        } else {
            memset(s.line1, 0, static_cast<size_t>(dim) * sizeof(float));
        }
        Value::pack_values(s.line0, s.line1, dim, s.values, j);
    }
}

template <class Score, class Value>
void load_keys(const AttentionArgs& a, const AttentionSpan& span, int64_t first, int64_t n, WideScratch& s) {
    switch (a.kv_type) {
        case Element::F32:
            return load_keys_as<Score, Value, Element::F32>(a, span, first, n, s);
        case Element::F16:
            return load_keys_as<Score, Value, Element::F16>(a, span, first, n, s);
        case Element::BF16:
            return load_keys_as<Score, Value, Element::BF16>(a, span, first, n, s);
    }
}

// Keys [first, first + n) for one tile of rows.
struct Keys {
    int64_t first, n;
    int64_t packed;  // the place of the first one in the packed tile of keys
    bool hidden;     // whether some row does not see some key that is computed
};

// scores += mask * log2 e, and best anew, over the keys.
template <Element kType, int N>
void add_mask(const RowTile& tile, const Keys& keys, float* scores, float* best) {
    const V factor = Simd::set1(kLog2E);
    for (int n = 0; n < N; n++) {
        const char* src[W];
        for (int i = 0; i < W; i++) src[i] = tile.rows[n * W + i].mask;
        V m = Simd::load(tile.best + n * W);
        for (int64_t j = 0; j < keys.n; j += W) {
            const int64_t columns = smaller(W, keys.n - j);
            V block[W];
            transpose_block<kType>(src, keys.first + j, columns, block);
            for (int64_t c = 0; c < columns; c++) {
                float* s = scores + ((j + c) * N + n) * W;
                const V x = Simd::fma(block[c], factor, Simd::load(s));
                Simd::store(s, x);
                m = Simd::max(m, x);
            }
        }
        Simd::store(best + n * W, m);
    }
}

// -inf where a row does not see a key, and best anew.
template <int N>
void hide_keys(const RowTile& tile, const Keys& keys, float* scores, float* best) {
    const V hidden = Simd::set1(-HUGE_VALF);
    for (int n = 0; n < N; n++) {
        const V begin = Simd::load(tile.begin + n * W), end = Simd::load(tile.end + n * W);
        V m = Simd::load(tile.best + n * W);
        for (int64_t j = 0; j < keys.n; j++) {
            float* s = scores + (j * N + n) * W;
            const V key = Simd::set1(static_cast<float>(keys.first + j));
            const V not_after = Simd::select_greater(end, key, Simd::load(s), hidden);
            const V x = Simd::select_greater(begin, key, hidden, not_after);
            Simd::store(s, x);
            m = Simd::max(m, x);
        }
        Simd::store(best + n * W, m);
    }
}

template <class Score, class Value, int N>
void attend_tile(const AttentionArgs& a, const Keys& keys, int64_t distances, WideScratch& s, RowTile& tile) {
    alignas(64) float best[N * W];
    memcpy(best, tile.best, sizeof(best));
    const int64_t key_stride = broadcast_stride<Score>(a.head_dim);
    for (int64_t j = 0; j < keys.n; j += kBlock) {
        score_keys<Score, N>(tile.q, s.keys + (keys.packed + j) * key_stride, a.head_dim,
                             s.scores + j * N * W, best);
    }
    if (a.positions.data) {
        add_positions<Score, N>(a, s.positions, distances, keys.n, tile, s.scores, best);
    }
    if (a.mask.data && a.mask_type == Element::F16) {
        add_mask<Element::F16, N>(tile, keys, s.scores, best);
    } else if (a.mask.data) {
        add_mask<Element::F32, N>(tile, keys, s.scores, best);
    }
    if (keys.hidden) hide_keys<N>(tile, keys, s.scores, best);
    for (int n = 0; n < N; n++) {
        const V m = finite_maximum(Simd::load(best + n * W));
        const V alpha = Simd::exp2(Simd::sub(Simd::load(tile.best + n * W), m));
        const V sum = Value::weights(s.scores + n * W, N * W, keys.n, m);
        Simd::store(tile.sum + n * W, Simd::fma(Simd::load(tile.sum + n * W), alpha, sum));
        Simd::store(tile.best + n * W, Simd::load(best + n * W));
        Simd::store(s.alpha + n * W, alpha);
    }
    for (int64_t d = 0; d < a.head_dim; d += kBlock) {
        const float* values = s.values + d * kTileKeys + keys.packed / Value::kPair * kBlock;
        add_values<Value, N>(s.scores, values, keys.n, s.alpha, tile.out + d * N * W);
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

// The keys of tile [first, first + n) that `tile` of rows has to do with; n = 0: none.
inline Keys keys_for(const RowTile& tile, int64_t first, int64_t n) {
    const int64_t begin = greater(tile.any.begin, first), end = smaller(tile.any.end, first + n);
    if (begin >= end) return {first, 0, 0, false};
    Keys keys;
    keys.packed = (begin - first) / kGroup * kGroup;
    keys.first = first + keys.packed;
    keys.n = end - keys.first;
    // Whole blocks are computed: behind the last key there may be one that the tile does not see.
    keys.hidden = keys.first < tile.all.begin || end > tile.all.end || end < first + n;
    return keys;
}

// Tiles of keys lie on multiples of kTileKeys from the span's first key, tiles of rows on multiples of
// kTileRows: what a row sees is cut up in the same way whatever the item.
template <class Score, class Value>
void attend_wide(const AttentionArgs& a, const AttentionItem& item, void* scratch) {
    WideScratch s;
    lay_out(&s, static_cast<float*>(scratch), a.head_dim, a.positions.data != nullptr);
    const int64_t n_rows = item.row_end - item.row_begin, first_tile = item.row_begin / kTileRows;
    const int n_tiles = static_cast<int>((n_rows + kTileRows - 1) / kTileRows);
    int64_t end = item.span.key_begin;  // of the keys that some row sees; those behind it are not touched
    for (int i = 0; i < n_tiles; i++) {
        load_queries<Score>(a, item, item.row_begin + i * kTileRows, s.tiles[i]);
        if (a.positions.data) {
            load_position_queries<Score>(a, item, item.row_begin + i * kTileRows, s.line0, s.tiles[i]);
        }
        end = greater(end, s.tiles[i].any.end);
    }
    start(s.positions, a, item.span);
    for (int64_t first = item.span.key_begin; first < end; first += kTileKeys) {
        const int64_t n_keys = smaller(kTileKeys, end - first);
        bool loaded = false;
        for (int i = 0; i < n_tiles; i++) {
            RowTile& tile = s.tiles[i];
            const Keys keys = keys_for(tile, first, n_keys);
            if (keys.n == 0) continue;
            if (!loaded) {
                load_keys<Score, Value>(a, item.span, first, n_keys, s);
                if (a.positions.data) {
                    load_positions<Score>(a, s.positions, item.span.kv_head, first - item.span.key_begin,
                                          n_keys, first_tile, n_tiles);
                }
                loaded = true;
            }
            const int64_t distances = keys.first - item.span.key_begin - (first_tile + i) * kTileRows;
            switch (tile.vectors) {
                case 1:
                    attend_tile<Score, Value, 1>(a, keys, distances, s, tile);
                    break;
                case 2:
                    attend_tile<Score, Value, 2>(a, keys, distances, s, tile);
                    break;
                default:
                    attend_tile<Score, Value, Simd::kVectors>(a, keys, distances, s, tile);
                    break;
            }
        }
    }
    for (int i = 0; i < n_tiles; i++) store_rows(a, smaller(kTileRows, n_rows - i * kTileRows), s.tiles[i]);
}

inline size_t wide_scratch_bytes(int64_t head_dim, bool positions) {
    WideScratch s;
    return lay_out(&s, nullptr, head_dim, positions);
}

}  // namespace
}  // namespace rustasr::kernels
