// A tile of rows of attention for many queries, one row to a lane. Included by the forms after their Simd.
#pragma once

#include "kernels/attention_products.h"

namespace rustasr::kernels {
namespace {

constexpr int kTiles = 16;  // most tiles of an item: what one conversion of K and V serves
// Rows and keys are cut at multiples of this: whole vectors and whole blocks of broadcast values.
constexpr int kGroup = W > kBlock ? W : kBlock;
static_assert(kTileKeys % kGroup == 0 && kGroup % W == 0 && kGroup % kBlock == 0 && kBlock % 4 == 0,
              "whole vectors and blocks");

// Most arrays are in scratch.
struct RowTile {
    Row rows[kTileRows];
    float begin[kTileRows], end[kTileRows];  // the keys that a row sees
    KeyRange any, all;                       // keys that some row sees, and that all see
    float *q, *out, *best, *sum;             // [D][rows], [D][rows], [rows], [rows]
    float* by_distance;                      // [rows][D]: queries as the table of positions meets them
    int vectors;                             // vectors of rows in use
};

// block[c] = src[0 .. W - 1][begin + c] for up to W columns c.
template <Element kType>
RUSTASR_INLINE void transpose_block(const char* const* src, int64_t begin, int64_t n, V* block) {
    const int64_t offset = begin * element_size(kType);
    for (int i = 0; i < W; i++) {
        block[i] = n >= W ? load_as<kType>(src[i] + offset) : load_part_as<kType>(src[i] + offset, n);
    }
    Simd::transpose(block);
}

}  // namespace
}  // namespace rustasr::kernels
