#include "kernels/simd_portable.h"
//
#include "kernels/exact_convolution_body.h"

namespace rustasr::kernels {

const ExactForm& exact_form_portable() {
    static const ExactForm form = {"portable", exact_convolution_chunks, scaled_relu};
    return form;
}

}  // namespace rustasr::kernels
