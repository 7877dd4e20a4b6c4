// The relative term of the scores of a tile: row i of Q meets row centre - place(i) + j of the table for key
// j. Of a group of rows and a tile of keys these are neighbouring rows of the table: they are multiplied with
// lanes along the table (so that a row of Q is broadcast), and the result, shifted by one from row to row, is
// transposed on its way into the scores.
//
// The table is packed in vectors of W rows [d][W], numbered so that group `g` of the tile of rows `r` begins
// at vector (distance - g) / W, distance = first key - r * kTileRows, both from the beginning of the span.
// They are kept in a ring: each is packed once for an item. Included by the forms after their Simd.
#pragma once

#include "kernels/attention_tile.h"

namespace rustasr::kernels {
namespace {

constexpr int kLastGroup = (kTileRows + kGroup - 1) / kGroup * kGroup - kGroup;  // of a tile of rows
constexpr int kRing = (kTiles * kTileRows + kGroup + kTileKeys + kGroup) / W + 2;
constexpr int kProducts = (kGroup + kTileKeys + W - 1) / W * W;  // of one row with a tile's part of the table

// Vectors of the table that a group of rows needs for n keys.
RUSTASR_INLINE int64_t table_vectors(int64_t n_keys) { return (kGroup - 1 + n_keys + W - 1) / W; }

struct PositionScratch {
    float* ring;      // [kRing][D][W]
    float* products;  // [kGroup][kProducts]
    int64_t size;     // floats of a vector
    int64_t row0;     // of the table, of vector 0
    int64_t loaded;   // vectors below this are packed
};

inline void lay_out(PositionScratch& s, Carver& carver, int64_t padded) {
    s.size = padded * W;
    s.ring = carver.take(kRing * s.size);
    s.products = carver.take(kGroup * kProducts);
}

inline void start(PositionScratch& s, const AttentionArgs& a, const AttentionSpan& span) {
    s.row0 = a.n_positions / 2 + span.key_begin - span.query_begin - span.offset - (kGroup - 1);
    s.loaded = INT64_MIN;
}

RUSTASR_INLINE float* vector_at(const PositionScratch& s, int64_t index) {
    return s.ring + ((index % kRing) + kRing) % kRing * s.size;
}

// The queries of a tile that meet the table. `line` has room for a row.
template <class Score>
void load_position_queries(const AttentionArgs& a, const AttentionItem& item, int64_t first, float* line,
                           RowTile& tile) {
    const int64_t n_rows = smaller(item.row_end - first, kTileRows), dim = a.head_dim;
    const float* bias = a.distance_bias ? a.distance_bias + item.span.kv_head * dim : nullptr;
    for (int64_t i = 0; i < round_up(tile.vectors * W, kBlock); i++) {
        const float* q = tile.rows[smaller(i, n_rows - 1)].q;
        for (int64_t d = 0; d < dim; d++) line[d] = (q[d] + (bias ? bias[d] : 0.0f)) * (a.scale * kLog2E);
        Score::template pack_broadcast<Element::F32>(reinterpret_cast<const char*>(line), dim,
                                                     tile.by_distance + i * broadcast_stride<Score>(dim));
    }
}

// Rows outside the table belong to lanes behind the last row and keys behind the last key, or to keys that
// the row does not see: any row will do.
template <Element kType>
void load_vector_as(const AttentionArgs& a, int64_t row, int64_t head, float* packed) {
    const char* src[W];
    for (int i = 0; i < W; i++) {
        src[i] = at(a.positions, greater(0, smaller(row + i, a.n_positions - 1)), head, 0);
    }
    for (int64_t d = 0; d < a.head_dim; d += W) {
        const int64_t columns = smaller(W, a.head_dim - d);
        V block[W];
        transpose_block<kType>(src, d, columns, block);
        for (int64_t c = 0; c < columns; c++) Simd::store(packed + (d + c) * W, block[c]);
    }
}

// What `n_tiles` tiles of rows from `first_tile` on need for n keys; `first_key` is counted from the span's
// first.
template <class Score>
void load_positions(const AttentionArgs& a, PositionScratch& s, int64_t head, int64_t first_key,
                    int64_t n_keys, int64_t first_tile, int64_t n_tiles) {
    const int64_t last_tile = first_tile + n_tiles - 1;
    const int64_t begin = (first_key - last_tile * kTileRows - kLastGroup) / W;
    const int64_t end = (first_key - first_tile * kTileRows) / W + table_vectors(n_keys);
    for (int64_t i = greater(begin, s.loaded); i < end; i++) {
        float* packed = vector_at(s, i);
        const int64_t row = s.row0 + i * W;
        switch (a.position_type) {
            case Element::F32:
                load_vector_as<Element::F32>(a, row, head, packed);
                break;
            case Element::F16:
                load_vector_as<Element::F16>(a, row, head, packed);
                break;
            case Element::BF16:
                load_vector_as<Element::BF16>(a, row, head, packed);
                break;
        }
        Score::pack_rows(packed, a.head_dim, W);
    }
    s.loaded = greater(s.loaded, end);
}

// products[kBlock][kProducts] of the block of queries at `broadcast` with M vectors of the table from
// `vector` on.
template <class Score, int M>
void multiply_table(const PositionScratch& s, int64_t vector, const float* broadcast, int64_t dim,
                    float* products) {
    const float* rows[M];
    for (int m = 0; m < M; m++) rows[m] = vector_at(s, vector + m);
    V block[kBlock][M];
    multiply<Score, M>(rows, W, broadcast, dim, block);
    RUSTASR_UNROLL
    for (int i = 0; i < kBlock; i++) {
        RUSTASR_UNROLL
        for (int m = 0; m < M; m++) Simd::store(products + i * kProducts + m * W, block[i][m]);
    }
}

// s.products[kGroup][...] of the tile's rows from `group` on.
template <class Score>
void multiply_group(const AttentionArgs& a, const PositionScratch& s, int64_t vector, int64_t n_vectors,
                    const RowTile& tile, int64_t group) {
    for (int64_t block = 0; block < kGroup; block += kBlock) {
        const float* broadcast = tile.by_distance + (group + block) * broadcast_stride<Score>(a.head_dim);
        float* products = s.products + block * kProducts;
        int64_t m = 0;
        while (n_vectors - m > 4 || n_vectors - m == 3) {
            multiply_table<Score, 3>(s, vector + m, broadcast, a.head_dim, products + m * W);
            m += 3;
        }
        for (; n_vectors - m >= 2; m += 2) {
            multiply_table<Score, 2>(s, vector + m, broadcast, a.head_dim, products + m * W);
        }
        if (m < n_vectors) multiply_table<Score, 1>(s, vector + m, broadcast, a.head_dim, products + m * W);
    }
}

// scores [n_keys][N * W] += the relative term, and best anew. `distance` is that of the first key.
template <class Score, int N>
void add_positions(const AttentionArgs& a, const PositionScratch& s, int64_t distance, int64_t n_keys,
                   const RowTile& tile, float* scores, float* best) {
    for (int64_t group = 0; group < N * W; group += kGroup) {
        multiply_group<Score>(a, s, (distance - group) / W, table_vectors(n_keys), tile, group);
        for (int64_t n = group; n < smaller(N * W, group + kGroup); n += W) {
            const char* src[W];
            for (int i = 0; i < W; i++) {
                const int64_t row = n - group + i;
                src[i] = reinterpret_cast<const char*>(s.products + row * kProducts + kGroup - 1 - row);
            }
            V m = Simd::load(tile.best + n);
            for (int64_t j = 0; j < n_keys; j += W) {
                const int64_t columns = smaller(W, n_keys - j);
                V block[W];
                transpose_block<Element::F32>(src, j, columns, block);
                for (int64_t c = 0; c < columns; c++) {
                    float* x = scores + (j + c) * N * W + n;
                    const V sum = Simd::add(Simd::load(x), block[c]);
                    Simd::store(x, sum);
                    m = Simd::max(m, sum);
                }
            }
            Simd::store(best + n, m);
        }
    }
}

}  // namespace
}  // namespace rustasr::kernels
