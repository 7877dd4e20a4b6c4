// Fused attention in AVX-512, F32 products.
#include "kernels/simd_avx512.h"
//
#include "kernels/attention_float.h"

namespace rustasr::kernels {

const AttentionForm& attention_form_avx512() {
    static constexpr AttentionForm form = float_form("avx512");
    return form;
}

}  // namespace rustasr::kernels
