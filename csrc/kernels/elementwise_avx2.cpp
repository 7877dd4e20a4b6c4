#include "kernels/simd_avx2.h"
//
#include "kernels/convolution_body.h"

namespace rustasr::kernels {

const ElementwiseForm& elementwise_form_avx2() {
    static const ElementwiseForm form = {
        "avx2",
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
