#include "kernels/vector_form.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "kernels/cpu_features.h"

namespace rustasr::kernels {
namespace {

struct Name {
    const char* name;
    VectorForm form;
};

constexpr Name kNames[] = {
    {"off", VectorForm::Off},           {"portable", VectorForm::Portable}, {"avx2", VectorForm::Avx2},
    {"avxvnni", VectorForm::Avx2},      {"avx512vnni", VectorForm::Avx512}, {"neon", VectorForm::Neon},
    {"neon_dotprod", VectorForm::Neon}, {"neon_i8mm", VectorForm::Neon},
};

VectorForm choose() {
    const std::vector<VectorForm> usable = usable_vector_forms();
    const char* wanted = std::getenv("RUSTASR_KERNELS");
    // The portable form is there to be compared with: ggml's own operations are faster.
    if (!wanted || !*wanted) return usable.back() == VectorForm::Portable ? VectorForm::Off : usable.back();
    std::string known;
    for (const Name& n : kNames) {
        const bool runs =
            n.form == VectorForm::Off || std::find(usable.begin(), usable.end(), n.form) != usable.end();
        if (runs && n.name == std::string(wanted)) return n.form;
        if (runs) known += std::string(known.empty() ? "" : ", ") + n.name;
    }
    throw OptionError("RUSTASR_KERNELS: expected one of " + known +
                      " (what this build and processor have); found '" + wanted + "'");
}

}  // namespace

std::vector<VectorForm> usable_vector_forms() {
    std::vector<VectorForm> forms = {VectorForm::Portable};
#if RUSTASR_HAVE_AVX2
    if (cpu_features().avx2) forms.push_back(VectorForm::Avx2);
#endif
#if RUSTASR_HAVE_AVX512
    if (cpu_features().avx512) forms.push_back(VectorForm::Avx512);
#endif
#if RUSTASR_HAVE_NEON
    if (cpu_features().neon) forms.push_back(VectorForm::Neon);
#endif
    return forms;
}

VectorForm chosen_vector_form() {
    static const VectorForm form = choose();
    return form;
}

}  // namespace rustasr::kernels
