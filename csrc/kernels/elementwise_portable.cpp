#include "kernels/simd_portable.h"
//
#include "kernels/convolution_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_portable() { return elementwise_form("portable"); }

}  // namespace rustasr::kernels
