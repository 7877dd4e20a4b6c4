#include "kernels/simd_avx512.h"
//
#include "kernels/recurrent_body.h"

namespace rustasr::kernels {

const RecurrentForm& recurrent_form_avx512() {
    static const RecurrentForm form = {"avx512", linear, lstm_step};
    return form;
}

}  // namespace rustasr::kernels
