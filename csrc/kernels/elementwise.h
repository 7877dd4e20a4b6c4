// Vectorised helpers: reductions over the logits of one decoder step, and norm, activations and a residual as
// ggml custom operations of one pass each.
#pragma once

#include <cstdint>

#include "ggml.h"

namespace rustasr::kernels {

// log(sum_i exp(x[i])) over n finite or -inf values; relative error of the sum below 1e-6.
// -inf for n = 0 or when every value is -inf.
float log_sum_exp(const float* x, int64_t n);

// Index of the greatest value, the first one among equals; NaN never wins (0 when there is nothing else). -1
// for n = 0.
int64_t argmax(const float* x, int64_t n);

// (x - mean) / sqrt(variance + eps) * weight + bias over dimension 0.
// x [n, ...] F32 with adjacent elements in a row; weight, bias [n] F32, bias may be nullptr. Result
// contiguous.
ggml_tensor* layer_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, ggml_tensor* bias, float eps);

// x / sqrt(mean(x^2) + eps) * weight over dimension 0. Operands as in layer_norm.
ggml_tensor* rms_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, float eps);

// The heads of a decoder block, in place: rms_norm of each head of x [D, H, T], by weights[0] in the first
// n_first heads and by weights[1] in the others, then the rotation of pairs (i, i + D/2) by the angles of the
// token (Su et al. 2021, arXiv:2104.09864, in GPT-NeoX's order).
// x: F32 with adjacent elements in a row; weights [D] F32; turns [D, T] F32, contiguous: D/2 cosines, D/2
// sines.
ggml_tensor* rms_norm_rotate(ggml_context* ctx, ggml_tensor* x, ggml_tensor* const (&weights)[2],
                             int64_t n_first, float eps, ggml_tensor* turns);

// gelu(x + bias) = 0.5 * z * (1 + erf(z / sqrt 2)), z = x + bias; absolute error below 1e-6 * max(1, |z|).
// x [n, ...] F32 with adjacent elements in a row; bias [n] F32 or nullptr. Result contiguous.
ggml_tensor* gelu_erf(ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias = nullptr);

// silu(x + bias) = z / (1 + e^-z), z = x + bias; relative error below 1e-5 for z > -80. Operands as in
// gelu_erf.
ggml_tensor* silu(ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias = nullptr);

// residual + scale * (x + bias). x and residual [n, ...] F32 of one shape with adjacent elements in a row;
// bias [n] F32 or nullptr. Result contiguous.
ggml_tensor* add_scaled(ggml_context* ctx, ggml_tensor* x, ggml_tensor* bias, float scale,
                        ggml_tensor* residual);

// False when the kernels are switched off (RUSTASR_KERNELS=off); the caller then builds ggml's own
// operations.
bool elementwise_supported();

}  // namespace rustasr::kernels
