#pragma once
// The decoder of a transducer (Graves 2012, arXiv:1211.3711): a prediction network that reads the tokens so
// far, and a joint network that looks at one encoder frame and the prediction. RNN-T and TDT differ in the
// joint's output only. Follows nemo/collections/asr/modules/rnnt.py (NeMo 3.0.0) and gigaam/decoder.py.
//
//   token → embed                                        [P]     the blank's row is zero
//     pred_layers × LSTM, state h, c                     [P]
//     joint.pred                                         [J]     once per token
//   frame → joint.enc                                    [J]     all at once, in the encoder's graph
//   joint.out · relu(joint.enc + joint.pred)             [n_classes]: n_vocab tokens, the blank, durations

#include <cstdint>
#include <vector>

#include "core/gguf.h"
#include "core/graph.h"
#include "nn/layers.h"
#include "nn/lstm.h"

namespace rustasr {

struct TransducerConfig {
    int n_vocab;   // without the blank
    int blank_id;  // = n_vocab
    int pred_layers, pred_hidden, joint_hidden, d_model;
    int max_symbols;                 // tokens on one frame
    std::vector<int32_t> durations;  // frames, by class; none: RNN-T

    /// Throws ModelFileError that names the key.
    static TransducerConfig read(const GgufFile& file, int d_model);

    bool is_tdt() const { return !durations.empty(); }
    int n_tokens() const { return n_vocab + 1; }  // with the blank
    int n_classes() const { return n_tokens() + static_cast<int>(durations.size()); }
};

class TransducerHead {
   public:
    TransducerHead(Weights root, const TransducerConfig& config);

    /// Encoder frames [d_model, n] → joint.enc [J, n].
    ggml_tensor* project(Graph& graph, ggml_tensor* frames) const { return enc_(graph, frames); }
    /// tokens I32 [m], states per layer [2P, m], replaced by those after the tokens [≥ 2P, m] → joint.pred
    /// [J, m].
    ggml_tensor* predict(Graph& graph, ggml_tensor* tokens, std::vector<ggml_tensor*>& states) const;
    /// relu(joint.enc + joint.pred) [J, m] → logits [n_classes, m].
    ggml_tensor* joint(Graph& graph, ggml_tensor* x) const { return out_(graph, x); }

    const TransducerConfig config;

   private:
    Embedding embed_;
    std::vector<LstmLayer> lstm_;
    Linear enc_;
    NarrowLinear pred_, out_;
};

}  // namespace rustasr
