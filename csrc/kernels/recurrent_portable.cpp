#include "kernels/simd_portable.h"
//
#include "kernels/recurrent_body.h"

namespace rustasr::kernels {

const RecurrentForm& recurrent_form_portable() {
    static const RecurrentForm form = {"portable", linear, lstm_step};
    return form;
}

}  // namespace rustasr::kernels
