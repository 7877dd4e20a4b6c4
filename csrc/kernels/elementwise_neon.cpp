#include "kernels/simd_neon.h"
//
#include "kernels/elementwise_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_neon() {
    static const ElementwiseForm form = {"neon", maximum, sum_exp, argmax, layer_norm, gelu_row};
    return form;
}

}  // namespace rustasr::kernels
