#include "kernels/simd_avx512.h"
//
#include "kernels/convolution_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_avx512() { return elementwise_form("avx512"); }

}  // namespace rustasr::kernels
