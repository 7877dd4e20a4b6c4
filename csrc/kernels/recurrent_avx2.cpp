#include "kernels/simd_avx2.h"
//
#include "kernels/recurrent_body.h"

namespace rustasr::kernels {

const RecurrentForm& recurrent_form_avx2() {
    static const RecurrentForm form = {"avx2", linear, lstm_step};
    return form;
}

}  // namespace rustasr::kernels
