#include "kernels/simd_avx2.h"
//
#include "kernels/exact_convolution_body.h"

namespace rustasr::kernels {

const ExactForm& exact_form_avx2() {
    static const ExactForm form = {"avx2", exact_convolution_chunks, scaled_relu};
    return form;
}

}  // namespace rustasr::kernels
