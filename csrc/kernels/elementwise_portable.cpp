#include "kernels/simd_portable.h"
//
#include "kernels/elementwise_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_portable() {
    static const ElementwiseForm form = {"portable", maximum, sum_exp, argmax, layer_norm, gelu_row};
    return form;
}

}  // namespace rustasr::kernels
