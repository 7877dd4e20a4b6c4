// Which vector instructions the attention and the elementwise kernels use here.
#pragma once

#include <vector>

namespace rustasr::kernels {

enum class VectorForm { Off, Portable, Avx2, Avx512, Neon };

// The forms that this build contains and this processor can run, the best one last.
std::vector<VectorForm> usable_vector_forms();

// The best usable form (Off where there is only the portable one, which ggml's own operations beat), or what
// RUSTASR_KERNELS names (portable, avx2, avxvnni, avx512vnni, neon, neon_dotprod, neon_i8mm: the integer
// forms imply the vectors of their processors; off). Read once. Throws OptionError where it names an unknown
// form or one that cannot run.
VectorForm chosen_vector_form();

}  // namespace rustasr::kernels
