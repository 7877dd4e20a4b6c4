// Fused attention in NEON (AArch64).
#include "kernels/simd_neon.h"
//
#include "kernels/attention_narrow.h"
#include "kernels/attention_wide.h"

namespace rustasr::kernels {
namespace {

size_t scratch_bytes(int64_t head_dim, bool positions) {
    const size_t wide = wide_scratch_bytes(head_dim, positions), few = narrow::scratch_bytes(head_dim);
    return wide > few ? wide : few;
}

}  // namespace

const AttentionForm& attention_form_neon() {
    static const AttentionForm form = {
        "neon",         narrow::kMaxRows, kTiles * kTileRows,
        kTileRows,      scratch_bytes,    attend_wide<FloatProduct, FloatProduct>,
        narrow::attend,
    };
    return form;
}

}  // namespace rustasr::kernels
