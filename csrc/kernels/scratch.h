// Working memory of a kernel.
#pragma once

#include <cstddef>

namespace rustasr::kernels {

// At least `bytes`, aligned to 64, of the calling thread: one block that every kernel uses in its turn and
// that grows to the greatest size asked for (attention: about 0.5 MiB for D = 64, 2 MiB for 256). What it
// held before is lost.
char* thread_scratch(size_t bytes);

}  // namespace rustasr::kernels
