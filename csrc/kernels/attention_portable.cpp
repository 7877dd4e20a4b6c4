// Fused attention in plain C++: for processors without a form of their own, and the oracle of the others.
#include "kernels/simd_portable.h"
//
#include "kernels/attention_float.h"

namespace rustasr::kernels {

const AttentionForm& attention_form_portable() {
    static constexpr AttentionForm form = float_form("portable");
    return form;
}

}  // namespace rustasr::kernels
