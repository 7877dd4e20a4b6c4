#include "kernels/simd_neon.h"
//
#include "kernels/convolution_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_neon() { return elementwise_form("neon"); }

}  // namespace rustasr::kernels
