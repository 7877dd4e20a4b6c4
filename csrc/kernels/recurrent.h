// One step of an LSTM, and a linear layer, for a few columns of activations: what a transducer's decoder does
// some hundred times a sentence. The time goes into reading the weights, so each is read once for all columns
// and widened on the way; activations stay F32. Sums do not depend on how many columns there are.
#pragma once

#include "ggml.h"

namespace rustasr::kernels {

// weight x + bias. weight [k, n] F32, F16 or BF16, contiguous; x [k, m] F32 with adjacent elements in a
// column; bias [n] F32. Result [n, m].
ggml_tensor* narrow_linear(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x);

// One step of m LSTM cells of width p. weight [k + p, 4p] as above: columns for the input, then for the
// hidden state; rows in PyTorch's order of gates i, f, g, o. bias [4p]; x [k, m]; state [2p, m]: h, then c.
// Result [6p, m]: the state after it, then what is left of the gates.
ggml_tensor* lstm_step(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x,
                       ggml_tensor* state);

// B sequences of T steps of one cell; the steps of a sequence come after each other on one thread. weight
// [p, 4p] as above, of the hidden state alone; gates [4p, T, B] F32: what input and bias give the gates;
// state [2p, B] before the first step. Result [6p, T, B]: columns as of lstm_step.
ggml_tensor* lstm_sequence(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* gates, ggml_tensor* state);

// m sequences of T steps through two cells, the one from the first step on, the other from the last. Weights
// [p, 4p] as above, of the hidden state alone; gates [8p, T, m] F32, contiguous: what input and bias give the
// gates of the one cell, then of the other. States begin at zero. Result [2p, T, m]: h of the one, then of
// the other.
ggml_tensor* lstm_from_both_ends(ggml_context* ctx, ggml_tensor* forward, ggml_tensor* backward,
                                 ggml_tensor* gates);

// Whether a weight of this type can be read.
bool recurrent_supported(ggml_type weight);

}  // namespace rustasr::kernels
