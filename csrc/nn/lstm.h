#pragma once
// Long short-term memory (Hochreiter and Schmidhuber 1997; gates as torch.nn.LSTM has them): one step, a
// whole sequence, a sequence from both ends.

#include "core/graph.h"
#include "nn/layers.h"

namespace rustasr {

/// A matrix that a few columns at a time are multiplied with: F32, F16 or BF16, never quantised.
class NarrowLinear {
   public:
    NarrowLinear(Weights weights, int64_t k, int64_t n);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;

   private:
    ggml_tensor* weight_;  // [k, n]
    ggml_tensor* bias_;    // [n]
};

class LstmLayer {
   public:
    LstmLayer(Weights weights, int64_t n_in, int64_t n_hidden);
    /// x [n_in, m], state [2·n_hidden, m] (h, then c) → the state after x; behind it a column may hold more.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, ggml_tensor* state) const;

   private:
    ggml_tensor* weight_;  // [n_in + n_hidden, 4·n_hidden], gates i, f, g, o
    ggml_tensor* bias_;    // [4·n_hidden]
    int64_t n_hidden_;
};

/// All steps of B sequences: the input's part of the gates is one product, the hidden state's comes step by
/// step.
class LstmSequence {
   public:
    LstmSequence(Weights weights, int64_t n_in, int64_t n_hidden);
    /// x [n_in, T, B], state [2·n_hidden, B] (h, then c) → the states after each step, [≥ 2·n_hidden, T, B].
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, ggml_tensor* state) const;

   private:
    Linear input_;         // n_in → 4·n_hidden, gates i, f, g, o; its bias is the cell's
    ggml_tensor* hidden_;  // [n_hidden, 4·n_hidden]
};

/// A layer that hears sequences from both ends, many of one length at once.
class BidirectionalLstm {
   public:
    BidirectionalLstm(Weights weights, int64_t n_in, int64_t n_hidden);
    /// x [n_in, T, B] → [2·n_hidden, T, B]: what the forward cell says, then the backward one.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;

   private:
    Linear input_;  // n_in → 8·n_hidden: gates i, f, g, o of the forward cell, then of the backward one
    ggml_tensor *forward_, *backward_;  // [n_hidden, 4·n_hidden]
};

}  // namespace rustasr
