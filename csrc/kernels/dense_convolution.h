// Dense convolution over mel and time as a matrix product, as ggml custom operations for the CPU backend. The
// channel is the fastest dimension and mel the next; stride 2, padding taps/2. A row of the weights runs over
// time taps, in each over mel taps, in each over channels.
#pragma once

#include "kernels/q8_matmul.h"

namespace rustasr::kernels {

// The inputs of every output, zeros where they lie outside: x F32 [C, F, T, B], contiguous → [taps² · C, F',
// T', B] with F' = (F − 1)/2 + 1 and T' alike. Its product with the weights is the convolution.
ggml_tensor* convolution_patches(ggml_context* ctx, ggml_tensor* x, int64_t taps);

// The same and the product with packed weights [taps² · C, n] (q8_pack), which takes the patches a few
// at a time instead of laying all of them out. xq: q8_quantize of x [C, F, T, B]; C must be a multiple of 32.
// The arithmetic is that of q8_linear on the quantised patches, exactly. Result: F32 [n, F', T', B].
ggml_tensor* q8_convolution(ggml_context* ctx, ggml_tensor* packed_w, int64_t n, ggml_tensor* xq,
                            int64_t taps, ggml_tensor* bias, Activation activation,
                            Quants quants = Quants::Q8_0);

}  // namespace rustasr::kernels
