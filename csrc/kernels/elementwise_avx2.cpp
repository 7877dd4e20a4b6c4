#include "kernels/simd_avx2.h"
//
#include "kernels/convolution_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_avx2() { return elementwise_form("avx2"); }

}  // namespace rustasr::kernels
