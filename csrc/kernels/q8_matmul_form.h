// What q8_matmul.cpp hands to a form, and the form's table. A form is the same algorithm compiled for one
// instruction set: q8_matmul_<isa>.cpp. The layouts, with nb = k / 32 blocks to a row:
//
// Packed weights: ceil(n / 16) tiles of 16 rows of W, the last one padded with zeros. A tile is
//     nb x 16 F16 scales, padded to a multiple of 64 bytes, then
//     nb x 8 x 64 bytes: the four values 4g..4g+3 of block b for row 0, then for row 1, ... row 15.
// Every byte of the values is xored with the form's weight_xor: 0x80 makes them unsigned (value + 128) for
// instructions that multiply unsigned by signed bytes.
// Of Q4_0 they are nb x 4 x 64 bytes: the low halves of a byte are the values 4g..4g+3 as above, the high
// ones 16 + 4g..16 + 4g+3, each as in the file (value + 8).
//
// Quantised activations, one row: k int8 values, then nb F32 scales, then nb int32 corrections,
//     correction = -128 * sum of the block's values: what the weights' + 128 adds to a dot product (and a
//     sixteenth of it what + 8 adds).
// Rounded twice, a row is one of 2k values: what the first rounding left follows as blocks nb ... 2nb.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/q8_matmul.h"

namespace rustasr::kernels {

constexpr int64_t kQ8Block = 32;

static constexpr int64_t q8_scales_nbytes(int64_t k) { return (k / kQ8Block * 32 + 63) / 64 * 64; }
static constexpr int64_t q8_tile_nbytes(int64_t k, Quants quants = Quants::Q8_0) {
    return q8_scales_nbytes(k) + k * kQ8PackRows / (quants == Quants::Q4_0 ? 2 : 1);
}

// A block whose greatest magnitude is below this becomes zeros: 127 / magnitude must be finite.
constexpr float kQ8Smallest = 1e-36f;
// The bits of infinity and of the NaN that stands for the scale of a block that is not finite.
constexpr int32_t kQ8InfinityBits = 0x7f800000, kQ8NanBits = 0x7fc00000;

struct Q8Product {
    const uint8_t* weights;
    const uint8_t* x;  // quantised rows, one after the other
    int64_t k, n;
    Quants quants;
    int64_t roundings;  // of x: its rows are of roundings * k values
    int64_t x_row_nbytes;
    float* y;           // [n, rows]
    const float* bias;  // [n] or null
    Activation activation;
    float scale;  // of the product before a residual is added
    // The residual of row r is row (r % rows1, r / rows1 % rows2, r / rows1 / rows2) of a strided tensor; or
    // null.
    const char* residual;
    int64_t residual_stride[3];
    int64_t rows1, rows2;
};

// static: a form compiled for one instruction set must not share code with the others.
static inline const float* q8_residual_row(const Q8Product& p, int64_t row) {
    if (p.residual == nullptr) return nullptr;
    int64_t offset = row * p.residual_stride[0];
    if (row >= p.rows1) {
        const int64_t rest = row / p.rows1;
        offset = row % p.rows1 * p.residual_stride[0] + rest % p.rows2 * p.residual_stride[1] +
                 rest / p.rows2 * p.residual_stride[2];
    }
    return reinterpret_cast<const float*>(p.residual + offset);
}

struct Q8Form {
    const char* name;
    uint8_t weight_xor;
    int64_t rows;   // work is best cut in multiples of this many rows ...
    int64_t tiles;  // ... and this many tiles
    // Blocks [begin, end) of a row of k values, to their places in the quantised row; x is the first of block
    // begin.
    void (*quantize)(const float* x, int64_t k, int64_t begin, int64_t end, uint8_t* out);
    void (*product)(const Q8Product& p, int64_t tile_begin, int64_t tile_end, int64_t row_begin,
                    int64_t row_end);
};

extern const Q8Form kQ8Portable;
extern const Q8Form kQ8Avx2;
extern const Q8Form kQ8AvxVnni;
extern const Q8Form kQ8Avx512Vnni;
extern const Q8Form kQ8NeonDotprod;

// The form in use, or null: the kernels are switched off.
const Q8Form* q8_active_form();

// The forms that this build has and this processor can run, best first; `count` receives how many.
const Q8Form* const* q8_available_forms(int* count);

// The form that RUSTASR_KERNELS=wanted means (null or "": the best one); nullptr for "off"; throws
// OptionError.
const Q8Form* q8_choose_form(const char* wanted);

// For tests: the form that later calls use, in place of the chosen one; nullptr restores the choice.
void q8_force_form(const Q8Form* form);

}  // namespace rustasr::kernels
