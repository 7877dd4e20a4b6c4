#include "kernels/simd_portable.h"
//
#include "kernels/convolution_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_portable() {
    static const ElementwiseForm form = {
        "portable",
        maximum,
        sum_exp,
        argmax,
        layer_norm,
        rms_norm,
        rms_norm_rotate,
        gelu_row,
        silu_row,
        add_scaled_row,
        gated_scratch_bytes,
        gated_convolution_rows,
        strided_scratch_bytes,
        strided_convolution_frames,
    };
    return form;
}

}  // namespace rustasr::kernels
