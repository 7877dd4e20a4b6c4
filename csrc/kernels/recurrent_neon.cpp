#include "kernels/simd_neon.h"
//
#include "kernels/recurrent_body.h"

namespace rustasr::kernels {

const RecurrentForm& recurrent_form_neon() {
    static const RecurrentForm form = {"neon", linear, lstm_step};
    return form;
}

}  // namespace rustasr::kernels
