// Fused attention in NEON (AArch64).
#include "kernels/simd_neon.h"
//
#include "kernels/attention_float.h"

namespace rustasr::kernels {

const AttentionForm& attention_form_neon() {
    static constexpr AttentionForm form = float_form("neon");
    return form;
}

}  // namespace rustasr::kernels
