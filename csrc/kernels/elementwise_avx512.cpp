#include "kernels/simd_avx512.h"
//
#include "kernels/elementwise_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_avx512() {
    static const ElementwiseForm form = {"avx512", maximum, sum_exp, argmax, layer_norm, gelu_row};
    return form;
}

}  // namespace rustasr::kernels
