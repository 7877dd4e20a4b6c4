#include "kernels/simd_avx512.h"
//
#include "kernels/exact_convolution_body.h"

namespace rustasr::kernels {

const ExactForm& exact_form_avx512() {
    static const ExactForm form = {"avx512", exact_convolution_chunks, scaled_relu};
    return form;
}

}  // namespace rustasr::kernels
