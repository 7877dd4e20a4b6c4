#pragma once
// Attention in F32 products, in the vectors of whoever includes this: a file of one instruction set, after
// its simd_*.h.

#include "kernels/attention_narrow.h"
#include "kernels/attention_wide.h"

namespace rustasr::kernels {
namespace {

size_t float_scratch_bytes(int64_t head_dim, bool positions) {
    const size_t wide = wide_scratch_bytes(head_dim, positions), few = narrow::scratch_bytes(head_dim);
    return wide > few ? wide : few;
}

constexpr AttentionForm float_form(const char* name) {
    return {name,          narrow::kMaxRows,    kTiles * kTileRows,
            kTileRows,     float_scratch_bytes, attend_wide<FloatProduct, FloatProduct>,
            narrow::attend};
}

}  // namespace
}  // namespace rustasr::kernels
