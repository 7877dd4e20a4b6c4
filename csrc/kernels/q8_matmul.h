// Matrix product of Q8_0 or Q4_0 weights with F32 activations, as ggml custom operations for the CPU backend.
//
//   weights  rows [k, n] (ggml order)       --q8_pack, once at load-->  packed (opaque bytes)
//   x        F32 [k, M, B1, B2]             --q8_quantize-->            xq (int8 blocks with scales)
//   y        F32 [n, M, B1, B2]  = scale * activation(W x + bias) + residual    <--q8_linear
//
// Arithmetic: weights keep the file's values exactly (32 integers of 8 or 4 bits and one F16 scale per block;
// a scale of the file is never changed). Activations are quantised as in Q8_0, one scale per 32 values, the
// scale kept in F32; with Rounding::Twice what that leaves of a value is quantised once more, 15 bits in all,
// which doubles the arithmetic and not what is read of W. Every block of 32 is summed in integers, blocks are
// summed in F32 in ascending order, so a result depends neither on the number of threads nor on the other
// rows of the batch.
//
// The form of the kernel is chosen once per process from the processor's features; the environment variable
// RUSTASR_KERNELS=portable|avx2|avxvnni|avx512vnni|neon|off forces one. "off" (q8_supported() is false,
// ggml's own product is to run) is also the choice where the processor has no other form than the portable
// one, which is slow. A packed tensor belongs to the form that packed it: do not store it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/activation.h"

struct ggml_context;
struct ggml_tensor;

namespace rustasr::kernels {

// Rows of W are packed in groups of this many; ranges given to q8_pack must start on a multiple of it.
constexpr int64_t kQ8PackRows = 16;

/// What the file's blocks of weights are; four bits stay four in memory.
enum class Quants : int32_t { Q8_0, Q4_0 };

// True where the kernel applies: k is a multiple of 32, both are positive and the kernels are not switched
// off.
bool q8_supported(int64_t k, int64_t n);

// Bytes of the packed form, a multiple of 64. About the size of the file's rows (n is padded to kQ8PackRows).
// Fastest where the tensor's data starts on a multiple of 64 bytes; correct anywhere.
size_t q8_packed_nbytes(int64_t k, int64_t n, Quants quants = Quants::Q8_0);

// Packs rows [row_begin, row_end) of W; file_rows points to row 0 and packed to the start of the whole.
// row_begin is a multiple of kQ8PackRows, row_end too unless it is n. Disjoint ranges may run in parallel.
// The packed bytes do not depend on their address: they may be copied.
void q8_pack(const void* file_rows, int64_t k, int64_t n, void* packed, int64_t row_begin, int64_t row_end,
             Quants quants = Quants::Q8_0);
inline void q8_pack(const void* file_rows, int64_t k, int64_t n, void* packed, Quants quants = Quants::Q8_0) {
    q8_pack(file_rows, k, n, packed, 0, n, quants);
}

/// How often activations are rounded to 8 bits.
enum class Rounding : int32_t { Once = 1, Twice = 2 };

// x: F32 [k, M, B1, B2] with nb[0] == 4 and any other strides (rows may overlap). Result: I8
// [q8_quantized_row_nbytes(k, rounding), M, B1, B2], to be given to any number of q8_linear of the same k. A
// block that holds an infinity or a NaN makes the results of its row NaN.
ggml_tensor* q8_quantize(ggml_context* ctx, ggml_tensor* x, Rounding rounding = Rounding::Once);
size_t q8_quantized_row_nbytes(int64_t k, Rounding rounding = Rounding::Once);

// The same for the rows of a convolution along dimension 1, which overlap: row t of the result holds frames
// t * stride - padding ... + taps - 1 of x, zeros where there is no such frame; k = taps * channels, tap by
// tap. x: F32 [channels, T, B1, B2], its frames adjacent. Result: [..., (T + 2 padding - taps) / stride + 1,
// B1, B2].
ggml_tensor* q8_quantize_frames(ggml_context* ctx, ggml_tensor* x, int64_t taps, int64_t stride,
                                int64_t padding);

// packed_w: a contiguous tensor of at least q8_packed_nbytes(k, n, quants) bytes (for instance 1-D, I8) in
// host memory. bias: F32 [n] or null. residual: F32 of y's shape, any strides with nb[0] == 4, or null;
// without one scale must be 1. Result: F32 [n, M, B1, B2].
ggml_tensor* q8_linear(ggml_context* ctx, ggml_tensor* packed_w, int64_t k, int64_t n, ggml_tensor* xq,
                       ggml_tensor* bias, Activation activation, ggml_tensor* residual, float scale = 1.0f,
                       Quants quants = Quants::Q8_0);

// Rows of W by index (for embeddings that share their weights with the output layer).
// ids: I32, contiguous, [T, B]. Result: F32 [k, T, B].
ggml_tensor* q8_get_rows(ggml_context* ctx, ggml_tensor* packed_w, int64_t k, int64_t n, ggml_tensor* ids,
                         Quants quants = Quants::Q8_0);

// The form in use: "portable", "avx2", "avxvnni", "avx512vnni", "neon" or "off". Throws rustasr::OptionError
// where RUSTASR_KERNELS names an unknown form or one that this processor lacks.
const char* q8_form();

}  // namespace rustasr::kernels
