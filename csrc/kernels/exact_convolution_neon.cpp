#include "kernels/simd_neon.h"
//
#include "kernels/exact_convolution_body.h"

namespace rustasr::kernels {

const ExactForm& exact_form_neon() {
    static const ExactForm form = {"neon", exact_convolution_chunks, scaled_relu};
    return form;
}

}  // namespace rustasr::kernels
