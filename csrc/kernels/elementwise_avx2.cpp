#include "kernels/simd_avx2.h"
//
#include "kernels/elementwise_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_avx2() {
    static const ElementwiseForm form = {"avx2", maximum, sum_exp, argmax, layer_norm, gelu_row};
    return form;
}

}  // namespace rustasr::kernels
