// Fused attention in AVX2 and FMA.
#include "kernels/simd_avx2.h"
//
#include "kernels/attention_float.h"

namespace rustasr::kernels {

const AttentionForm& attention_form_avx2() {
    static constexpr AttentionForm form = float_form("avx2");
    return form;
}

}  // namespace rustasr::kernels
