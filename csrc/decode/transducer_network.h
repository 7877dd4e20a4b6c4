#pragma once
// Runs the prediction and joint networks of a transducer for several hypotheses at once. States live on the
// host: they are some KB each, hypotheses share and drop them freely, and the graphs stay pure functions.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/graph.h"
#include "nn/transducer.h"

namespace rustasr {

/// What the prediction network knows after some tokens.
struct Prediction {
    std::vector<float> state;   // [L, 2P]: h and c of every layer
    std::vector<float> output;  // [J]: joint.pred
};
using PredictionPtr = std::shared_ptr<const Prediction>;

/// One more token after `before`; null: at the start.
struct PredictionInput {
    const Prediction* before;
    int32_t token;
};

struct JointInput {
    const float* frame;       // [J]: joint.enc
    const float* prediction;  // [J]: joint.pred
};

class TransducerNetwork {
   public:
    TransducerNetwork(Backend& backend, const TransducerHead& head) : backend_(backend), head_(head) {}

    const TransducerConfig& config() const { return head_.config; }
    bool on_cpu() const { return backend_.on_cpu(); }

    /// Before any token: the blank, whose embedding is zero, read from a zero state.
    PredictionPtr start();
    std::vector<PredictionPtr> predict(const std::vector<PredictionInput>& inputs);
    /// Logits [n_classes] of each input, one after the other; they may be written to, until the next call.
    float* joint(const std::vector<JointInput>& inputs);

   private:
    struct PredictPass;
    struct JointPass;
    PredictPass& predict_pass(size_t n);
    JointPass& joint_pass(size_t n);

    Backend& backend_;
    const TransducerHead& head_;
    PredictionPtr start_;
    std::map<size_t, std::shared_ptr<PredictPass>> predict_passes_;  // by columns
    std::map<size_t, std::shared_ptr<JointPass>> joint_passes_;
    std::vector<float> x_, logits_;
};

}  // namespace rustasr
