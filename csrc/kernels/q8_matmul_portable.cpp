// The Q8_0 product in plain C++: the form for every other processor, and the measure of the rest.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/q8_matmul_form.h"

namespace rustasr::kernels {
namespace {

float f16_to_f32(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31,
                   fraction = h & 1023;
    if (exponent == 0) {
        const float value = std::ldexp(static_cast<float>(fraction), -24);
        return sign ? -value : value;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

float activate(float x, Activation activation) {
    switch (activation) {
        case Activation::Gelu:
            return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
        case Activation::Silu:
            return x / (1.0f + std::exp(-x));
        case Activation::Relu:
            return x < 0.0f ? 0.0f : x;
        case Activation::None:
            break;
    }
    return x;
}

void quantize(const float* x, int64_t k, int64_t begin, int64_t end, uint8_t* out) {
    for (int64_t b = begin; b < end; ++b, x += kQ8Block) {
        float greatest = 0.0f;
        bool finite = true;
        for (int i = 0; i < kQ8Block; ++i) {
            finite = finite && std::isfinite(x[i]);
            greatest = std::fabs(x[i]) > greatest ? std::fabs(x[i]) : greatest;
        }
        const bool zero = !finite || greatest < kQ8Smallest;
        const float inverse = zero ? 0.0f : 127.0f / greatest;
        int32_t sum = 0;
        for (int i = 0; i < kQ8Block; ++i) {
            const int32_t q = zero ? 0 : static_cast<int32_t>(std::nearbyint(x[i] * inverse));
            out[b * kQ8Block + i] = static_cast<uint8_t>(q);
            sum += q;
        }
        const float scale = !finite ? std::numeric_limits<float>::quiet_NaN()
                            : zero  ? 0.0f
                                    : greatest / 127.0f;
        const int32_t correction = -128 * sum;
        std::memcpy(out + k + 4 * b, &scale, 4);
        std::memcpy(out + k + 4 * (k / kQ8Block + b), &correction, 4);
    }
}

// The 32 values of row r of a tile, of the block at `packed`, as the file means them.
void block_values(const uint8_t* packed, Quants quants, int r, int32_t* values) {
    for (int g = 0; g < 8; ++g) {
        for (int j = 0; j < 4; ++j) {
            const int at = 4 * r + j;
            if (quants == Quants::Q8_0) {
                values[4 * g + j] = static_cast<int8_t>(packed[64 * g + at]);
            } else {
                values[4 * g + j] = (packed[64 * (g % 4) + at] >> (g / 4 * 4) & 15) - 8;
            }
        }
    }
}

// One row of x times one tile of 16 rows of W.
void product_tile(const Q8Product& p, int64_t tile, int64_t row) {
    constexpr int R = kQ8PackRows;
    const int64_t n_blocks = p.k / kQ8Block;
    const int64_t block_nbytes = kQ8Block * R / (p.quants == Quants::Q4_0 ? 2 : 1);
    const uint8_t* scales = p.weights + tile * q8_tile_nbytes(p.k, p.quants);
    const uint8_t* values = scales + q8_scales_nbytes(p.k);
    const uint8_t* x_row = p.x + row * p.x_row_nbytes;
    const int8_t* x = reinterpret_cast<const int8_t*>(x_row);
    float acc[R] = {};
    for (int64_t i = 0; i < p.roundings * n_blocks; ++i, x += kQ8Block) {
        const int64_t b = i % n_blocks;
        int32_t sum[R] = {};
        for (int r = 0; r < R; ++r) {
            int32_t w[kQ8Block];
            block_values(values + b * block_nbytes, p.quants, r, w);
            for (int j = 0; j < kQ8Block; ++j) sum[r] += w[j] * x[j];
        }
        float x_scale;
        std::memcpy(&x_scale, x_row + p.roundings * p.k + 4 * i, 4);
        for (int r = 0; r < R; ++r) {
            uint16_t half;
            std::memcpy(&half, scales + 32 * b + 2 * r, 2);
            acc[r] += f16_to_f32(half) * x_scale * static_cast<float>(sum[r]);
        }
    }
    const float* residual = q8_residual_row(p, row);
    const int64_t column = tile * R;
    for (int64_t r = 0; r < R && column + r < p.n; ++r) {
        const float z = acc[r] + (p.bias ? p.bias[column + r] : 0.0f);
        float& y = p.y[row * p.n + column + r];
        y = activate(z, p.activation);
        if (residual != nullptr) y = y * p.scale + residual[column + r];
    }
}

void product(const Q8Product& p, int64_t tile_begin, int64_t tile_end, int64_t row_begin, int64_t row_end) {
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
        for (int64_t row = row_begin; row < row_end; ++row) product_tile(p, tile, row);
    }
}

}  // namespace

const Q8Form kQ8Portable = {"portable", 0x00, 1, 1, quantize, product};

}  // namespace rustasr::kernels
