// Which form of the attention kernels runs here.
#include "kernels/attention_form.h"
#include "kernels/cpu_features.h"
#include "kernels/vector_form.h"

namespace rustasr::kernels {
namespace {

const AttentionForm* form_of(VectorForm form) {
    switch (form) {
        case VectorForm::Off:
            return nullptr;
#if RUSTASR_HAVE_AVX2
        case VectorForm::Avx2:
            return &attention_form_avx2();
#endif
#if RUSTASR_HAVE_AVX512
        case VectorForm::Avx512:
            return &attention_form_avx512();
#endif
#if RUSTASR_HAVE_NEON
        case VectorForm::Neon:
            return &attention_form_neon();
#endif
        default:
            return &attention_form_portable();
    }
}

const AttentionForm* form_of(VectorForm form, Precision precision) {
#if RUSTASR_HAVE_AVX512BF16 && RUSTASR_HAVE_AVX512
    if (form == VectorForm::Avx512 && cpu_features().avx512bf16) {
        if (precision == Precision::Mixed) return &attention_form_avx512bf16_mixed();
        if (precision == Precision::Fast) return &attention_form_avx512bf16();
    }
#endif
    (void)precision;
    return form_of(form);
}

}  // namespace

std::vector<const AttentionForm*> attention_usable_forms() {
    std::vector<const AttentionForm*> forms;
    for (VectorForm form : usable_vector_forms()) {
        for (Precision precision : {Precision::F32, Precision::Mixed, Precision::Fast}) {
            const AttentionForm* next = form_of(form, precision);
            if (forms.empty() || forms.back() != next) forms.push_back(next);
        }
    }
    return forms;
}

const AttentionForm* attention_chosen_form(Precision precision) {
    return form_of(chosen_vector_form(), precision);
}

}  // namespace rustasr::kernels
