// The Q8_0 product written once for every instruction set, over a trait S of that set (see
// q8_matmul_avx2.cpp):
//     F, I, W, X           vectors of kLanes floats and int32 sums, of weights and of a broadcast activation
//     kLanes               4, 8 or 16: rows of W in one vector
//     weights(p)           kLanes x 4 bytes of packed weights;   broadcast(p)  4 activations for every lane
//     start(p)             the sums of a block before its products, from the correction at p
//     dot(sum, w, x)       sum + the four products of each lane
// for weights of four bits, which are 0..15 in every form,
//     H                    a vector of kLanes x 4 of them
//     halves(p, low, high) those in the low and in the high halves of the bytes at p
//     start_halves(p)      the sums before their products: a sixteenth of the correction at p
//     dot_halves(sum, w, x)
// and ordinary F32 arithmetic. Everything is in an anonymous namespace: see BUILD notes in
// cmake/kernels.cmake.
#pragma once

#include <cstdint>

#include "kernels/q8_matmul_form.h"
#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

// gelu(x) = x/2 (1 + erf(x/sqrt 2)), erf(x/sqrt 2) = x P(u) with u = 2 x^2 / 5.1^2 - 1 and |x| <= 5.1; beyond
// it P gives exactly +-1. P is a least-squares fit of degree 12 in Chebyshev polynomials, reweighted (Lawson,
// 1961) towards the least greatest error of erf. Absolute error of gelu below 4e-7 |x|.
constexpr float kGeluLimit = 5.1f, kGeluScale = 0.0768935010f;  // 2 / 5.1^2
constexpr float kGeluP[13] = {0.277210563f,  -0.138005495f,   0.101563379f,   -0.0804640427f,
                              0.0634766892f, -0.0478446633f,  0.0346646644f,  -0.0245767087f,
                              0.0144016417f, -0.00582360523f, 0.00403396087f, -0.00418733945f,
                              0.00162937923f};

template <class S>
RUSTASR_INLINE typename S::F gelu(typename S::F x) {
    using F = typename S::F;
    const F limited = S::max(S::min(x, S::set1(kGeluLimit)), S::set1(-kGeluLimit));
    const F u = S::fma(S::mul(limited, limited), S::set1(kGeluScale), S::set1(-1.0f));
    F p = S::set1(kGeluP[12]);
    RUSTASR_UNROLL
    for (int i = 11; i >= 0; --i) p = S::fma(p, u, S::set1(kGeluP[i]));
    const F half = S::mul(x, S::set1(0.5f));
    return S::fma(half, S::mul(limited, p), half);
}

// silu(x) = x / (1 + exp(-x)); exp(t) = 2^i e^f with t = i ln 2 + f, |f| <= ln(2)/2, e^f by its Taylor series
// to f^6 (remainder below 2e-7 relative).
template <class S>
RUSTASR_INLINE typename S::F silu(typename S::F x) {
    using F = typename S::F;
    const F t = S::max(S::min(S::mul(x, S::set1(-1.0f)), S::set1(88.7f)), S::set1(-87.0f));
    const typename S::I i = S::round(S::mul(t, S::set1(1.44269504f)));
    const F whole = S::to_float(i);
    F f = S::fma(whole, S::set1(-0.693359375f), t);  // ln 2 in two parts, the first exact in few bits
    f = S::fma(whole, S::set1(2.12194440e-4f), f);
    F e = S::set1(1.0f / 720);
    e = S::fma(e, f, S::set1(1.0f / 120));
    e = S::fma(e, f, S::set1(1.0f / 24));
    e = S::fma(e, f, S::set1(1.0f / 6));
    e = S::fma(e, f, S::set1(0.5f));
    e = S::fma(e, f, S::set1(1.0f));
    e = S::fma(e, f, S::set1(1.0f));
    return S::div(x, S::add(S::set1(1.0f), S::times_power_of_two(e, i)));
}

template <class S, Activation A>
RUSTASR_INLINE typename S::F activate(typename S::F x) {
    if (A == Activation::Gelu) return gelu<S>(x);
    if (A == Activation::Silu) return silu<S>(x);
    if (A == Activation::Relu) return S::max(S::set1(0.0f), x);  // in this order x86 keeps a NaN
    return x;
}

template <class S, Activation A>
RUSTASR_INLINE void finish_vector(const float* sum, const float* bias, float scale, const float* residual,
                                  float* y) {
    typename S::F v = S::load(sum);
    if (bias != nullptr) v = S::add(v, S::load(bias));
    v = activate<S, A>(v);
    if (residual != nullptr) v = S::fma(v, S::set1(scale), S::load(residual));
    S::store(y, v);
}

// y[i] = scale * activation(sum[i] + bias[i]) + residual[i] for i < count (without a residual the scale is
// 1); `sum` is readable to a whole vector.
template <class S, Activation A>
void finish_row(const float* sum, const float* bias, float scale, const float* residual, float* y,
                int64_t count) {
    constexpr int L = S::kLanes;
    int64_t i = 0;
    for (; i + L <= count; i += L) {
        finish_vector<S, A>(sum + i, bias ? bias + i : nullptr, scale, residual ? residual + i : nullptr,
                            y + i);
    }
    if (i == count) return;
    float b[L] = {}, r[L] = {}, out[L];
    for (int64_t j = i; j < count; ++j) {
        if (bias != nullptr) b[j - i] = bias[j];
        if (residual != nullptr) r[j - i] = residual[j];
    }
    finish_vector<S, A>(sum + i, bias ? b : nullptr, scale, residual ? r : nullptr, out);
    for (int64_t j = i; j < count; ++j) y[j] = out[j - i];
}

// The usual end of a tile, from the registers: nothing but a bias and a residual, all columns present.
template <class S, int ROWS, int VECTORS>
RUSTASR_INLINE void finish_plain(const Q8Product& p, typename S::F (&acc)[ROWS][VECTORS], int64_t column,
                                 int64_t row) {
    if (p.bias != nullptr) {
        RUSTASR_UNROLL
        for (int v = 0; v < VECTORS; ++v) {
            const typename S::F bias = S::load(p.bias + column + v * S::kLanes);
            RUSTASR_UNROLL
            for (int m = 0; m < ROWS; ++m) acc[m][v] = S::add(acc[m][v], bias);
        }
    }
    const typename S::F scale = S::set1(p.scale);
    float* y = p.y + row * p.n + column;
    RUSTASR_UNROLL
    for (int m = 0; m < ROWS; ++m, y += p.n) {
        const float* residual = q8_residual_row(p, row + m);
        if (residual != nullptr) {
            RUSTASR_UNROLL
            for (int v = 0; v < VECTORS; ++v) {
                acc[m][v] = S::fma(acc[m][v], scale, S::load(residual + column + v * S::kLanes));
            }
        }
        RUSTASR_UNROLL
        for (int v = 0; v < VECTORS; ++v) S::store(y + v * S::kLanes, acc[m][v]);
    }
}

// Every other end of a tile, through memory.
template <class S, int ROWS, int VECTORS>
RUSTASR_INLINE void finish_any(const Q8Product& p, typename S::F (&acc)[ROWS][VECTORS], int64_t column,
                               int64_t row, int64_t count) {
    alignas(64) float out[ROWS][VECTORS * S::kLanes];
    RUSTASR_UNROLL
    for (int m = 0; m < ROWS; ++m) {
        RUSTASR_UNROLL
        for (int v = 0; v < VECTORS; ++v) S::store(out[m] + v * S::kLanes, acc[m][v]);
    }
    const float* bias = p.bias ? p.bias + column : nullptr;
    for (int m = 0; m < ROWS; ++m) {
        const float* residual = q8_residual_row(p, row + m);
        if (residual != nullptr) residual += column;
        float* y = p.y + (row + m) * p.n + column;
        switch (p.activation) {
            case Activation::None:
                finish_row<S, Activation::None>(out[m], bias, p.scale, residual, y, count);
                break;
            case Activation::Gelu:
                finish_row<S, Activation::Gelu>(out[m], bias, p.scale, residual, y, count);
                break;
            case Activation::Silu:
                finish_row<S, Activation::Silu>(out[m], bias, p.scale, residual, y, count);
                break;
            case Activation::Relu:
                finish_row<S, Activation::Relu>(out[m], bias, p.scale, residual, y, count);
                break;
        }
    }
}

// Adds one block of 32: of ROWS rows of x with TILES tiles of 16 rows of W. `weights` and `x` are at its
// first values.
template <class S, int ROWS, int TILES>
RUSTASR_INLINE void add_block(const Q8Product& p, const uint8_t* weights, const uint8_t* x,
                              typename S::I (&sum)[ROWS][TILES * kQ8PackRows / S::kLanes]) {
    constexpr int kPerTile = kQ8PackRows / S::kLanes, kVectors = TILES * kPerTile;
    const int64_t tile_nbytes = q8_tile_nbytes(p.k), stride = p.x_row_nbytes;
    RUSTASR_UNROLL
    for (int g = 0; g < 8; ++g) {
        typename S::W w[kVectors];
        RUSTASR_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            w[v] = S::weights(weights + v / kPerTile * tile_nbytes + 64 * g + v % kPerTile * 4 * S::kLanes);
        }
        RUSTASR_UNROLL
        for (int m = 0; m < ROWS; ++m) {
            const typename S::X xs = S::broadcast(x + m * stride + 4 * g);
            RUSTASR_UNROLL
            for (int v = 0; v < kVectors; ++v) sum[m][v] = S::dot(sum[m][v], w[v], xs);
        }
    }
}

// The same with weights of four bits.
template <class S, int ROWS, int TILES>
RUSTASR_INLINE void add_block_halves(const Q8Product& p, const uint8_t* weights, const uint8_t* x,
                                     typename S::I (&sum)[ROWS][TILES * kQ8PackRows / S::kLanes]) {
    constexpr int kPerTile = kQ8PackRows / S::kLanes, kVectors = TILES * kPerTile;
    const int64_t tile_nbytes = q8_tile_nbytes(p.k, Quants::Q4_0), stride = p.x_row_nbytes;
    RUSTASR_UNROLL
    for (int g = 0; g < 4; ++g) {
        typename S::H low[kVectors], high[kVectors];
        RUSTASR_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            S::halves(weights + v / kPerTile * tile_nbytes + 64 * g + v % kPerTile * 4 * S::kLanes, low[v],
                      high[v]);
        }
        RUSTASR_UNROLL
        for (int m = 0; m < ROWS; ++m) {
            const uint8_t* at = x + m * stride + 4 * g;
            const typename S::X first = S::broadcast(at), second = S::broadcast(at + kQ8Block / 2);
            RUSTASR_UNROLL
            for (int v = 0; v < kVectors; ++v) {
                sum[m][v] = S::dot_halves(sum[m][v], low[v], first);
                sum[m][v] = S::dot_halves(sum[m][v], high[v], second);
            }
        }
    }
}

// ROWS rows of x times TILES tiles of 16 rows of W, over the whole of k. With `fetch`, the tiles after these
// are asked for meanwhile: the processor's own prefetching is late when the weights come from memory.
template <class S, Quants Q, int ROWS, int TILES>
void product_tile(const Q8Product& p, int64_t tile, int64_t row, bool fetch) {
    using F = typename S::F;
    using I = typename S::I;
    constexpr int kPerTile = kQ8PackRows / S::kLanes, kVectors = TILES * kPerTile;
    constexpr int kBlockNbytes = kQ8Block * kQ8PackRows / (Q == Quants::Q4_0 ? 2 : 1);
    const int64_t n_blocks = p.k / kQ8Block, tile_nbytes = q8_tile_nbytes(p.k, Q);
    const uint8_t* scales = p.weights + tile * tile_nbytes;
    const uint8_t* weights = scales + q8_scales_nbytes(p.k);
    const int64_t stride = p.x_row_nbytes;
    const uint8_t* x = p.x + row * stride;
    const uint8_t* x_scales = x + p.roundings * p.k;
    const uint8_t* x_corrections = x_scales + p.roundings * n_blocks * 4;

    F acc[ROWS][kVectors];
    RUSTASR_UNROLL
    for (int m = 0; m < ROWS; ++m) {
        RUSTASR_UNROLL
        for (int v = 0; v < kVectors; ++v) acc[m][v] = S::set1(0.0f);
    }
    for (int64_t i = 0, b = 0; i < p.roundings * n_blocks; ++i, ++b) {
        if (b == n_blocks) {  // the same weights, now in the first-level cache, times what rounding left
            b = 0;
            weights = scales + q8_scales_nbytes(p.k);
            fetch = false;
        }
        if (fetch) {
            RUSTASR_UNROLL
            for (int t = 0; t < TILES; ++t) {
                RUSTASR_UNROLL
                for (int g = 0; g < kBlockNbytes / 64; ++g)
                    S::prefetch(weights + (TILES + t) * tile_nbytes + 64 * g);
                S::prefetch(scales + (TILES + t) * tile_nbytes + 32 * b);
            }
        }
        I sum[ROWS][kVectors];
        RUSTASR_UNROLL
        for (int m = 0; m < ROWS; ++m) {
            const uint8_t* correction = x_corrections + m * stride + 4 * i;
            const I start = Q == Quants::Q4_0 ? S::start_halves(correction) : S::start(correction);
            RUSTASR_UNROLL
            for (int v = 0; v < kVectors; ++v) sum[m][v] = start;
        }
        if constexpr (Q == Quants::Q4_0) {
            add_block_halves<S, ROWS, TILES>(p, weights, x, sum);
        } else {
            add_block<S, ROWS, TILES>(p, weights, x, sum);
        }
        RUSTASR_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            const F w_scale =
                S::load_f16(scales + v / kPerTile * tile_nbytes + 32 * b + v % kPerTile * 2 * S::kLanes);
            RUSTASR_UNROLL
            for (int m = 0; m < ROWS; ++m) {
                const F scale = S::mul(w_scale, S::load_broadcast(x_scales + m * stride + 4 * i));
                acc[m][v] = S::fma(S::to_float(sum[m][v]), scale, acc[m][v]);
            }
        }
        x += kQ8Block;
        weights += kBlockNbytes;
    }

    const int64_t column = tile * kQ8PackRows, left = p.n - column;
    const int64_t count = left < TILES * kQ8PackRows ? left : TILES * kQ8PackRows;
    if (p.activation == Activation::None && count == TILES * kQ8PackRows) {
        finish_plain<S, ROWS, kVectors>(p, acc, column, row);
    } else {
        finish_any<S, ROWS, kVectors>(p, acc, column, row, count);
    }
}

// Rows [row, row + rows) with rows <= ROWS.
template <class S, Quants Q, int ROWS, int TILES>
void product_rows(const Q8Product& p, int64_t tile, int64_t row, int64_t rows, bool fetch) {
    if constexpr (ROWS > 1) {
        if (rows < ROWS) return product_rows<S, Q, ROWS - 1, TILES>(p, tile, row, rows, fetch);
    }
    product_tile<S, Q, ROWS, TILES>(p, tile, row, fetch);
}

// One row has few independent sums: it takes S::kTilesOfOneRow tiles at a time.
template <class S, Quants Q>
void product_panel(const Q8Product& p, int64_t tile, int64_t tile_end, int64_t row, int64_t rows,
                   bool fetch) {
    if (rows == 1) {
        for (; tile + S::kTilesOfOneRow <= tile_end; tile += S::kTilesOfOneRow) {
            product_tile<S, Q, 1, S::kTilesOfOneRow>(p, tile, row, fetch);
        }
    }
    for (; tile + S::kTiles <= tile_end; tile += S::kTiles) {
        product_rows<S, Q, S::kRows, S::kTiles>(p, tile, row, rows, fetch);
    }
    for (; tile < tile_end; ++tile) product_rows<S, Q, S::kRows, 1>(p, tile, row, rows, fetch);
}

// A chunk of tiles stays in the second-level cache while all rows pass over it.
constexpr int64_t kChunkNbytes = 384 * 1024;

template <class S, Quants Q>
void product_of(const Q8Product& p, int64_t tile_begin, int64_t tile_end, int64_t row_begin,
                int64_t row_end) {
    int64_t chunk = kChunkNbytes / q8_tile_nbytes(p.k, Q) / S::kTiles * S::kTiles;
    if (chunk < S::kTilesOfOneRow) chunk = S::kTilesOfOneRow;
    // Rows that all fit the registers pass over the weights once: no cache is needed, and no panel is cut.
    if (row_end - row_begin <= S::kRows) chunk = tile_end - tile_begin;
    for (int64_t tile = tile_begin; tile < tile_end; tile += chunk) {
        const int64_t end = tile + chunk < tile_end ? tile + chunk : tile_end;
        for (int64_t row = row_begin; row < row_end; row += S::kRows) {
            const int64_t rows = row_end - row < S::kRows ? row_end - row : S::kRows;
            product_panel<S, Q>(p, tile, end, row, rows, row == row_begin);
        }
    }
}

template <class S>
void product(const Q8Product& p, int64_t tile_begin, int64_t tile_end, int64_t row_begin, int64_t row_end) {
    const auto run = p.quants == Quants::Q4_0 ? product_of<S, Quants::Q4_0> : product_of<S, Quants::Q8_0>;
    run(p, tile_begin, tile_end, row_begin, row_end);
}

}  // namespace
}  // namespace rustasr::kernels
