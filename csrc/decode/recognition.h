#pragma once
// What the CTC and transducer searches take and give. Frames are the encoder's output frames.

#include <cstdint>
#include <vector>

#include "ggml.h"

namespace rustasr {

/// The encoder's result for B utterances, on the device: [n, T_max, B], F32, contiguous. For CTC n is the
/// number of classes and the values are log-probabilities; for a transducer they are the frames as its joint
/// network sees them (joint.enc applied).
struct EncodedFrames {
    ggml_tensor* values = nullptr;
    std::vector<int> lengths;  // frames of each utterance

    /// Throws OptionError where an utterance is none of these.
    void check(const std::vector<int>& utterances) const;
    /// [length, n] on the host.
    std::vector<float> read(int utterance) const;
};

struct SearchOptions {
    static constexpr int kMostBeams = 64;

    int beam_size = 1;                           // 1: greedy
    int max_symbols = 0;                         // tokens on one frame; 0: what the model says
    std::vector<int32_t> suppress;               // ids that are never emitted (never the blank)
    std::vector<std::vector<int32_t>> hotwords;  // token sequences that a beam search prefers
    float hotword_boost = 1.5f;                  // added to the log-probability per matched token
    // Transducers: a hypothesis goes on with what is at most this far below the likeliest. γ of modified
    // adaptive expansion search (Kim et al. 2020, arXiv:2011.02072); 2.3 is ESPnet's and NeMo's value.
    float expansion_gamma = 2.3f;

    /// Throws OptionError.
    void check() const;
    /// Throws OptionError where an id is none of the vocabulary's.
    void check_ids(int32_t n_vocab) const;
};

/// One utterance's tokens.
struct Recognized {
    std::vector<int32_t> tokens;
    std::vector<int32_t> frames;     // at which each token was emitted
    std::vector<int32_t> durations;  // frames that it lasts (TDT; 1 elsewhere)
    std::vector<float> logprobs;     // of each token, among tokens and blank
    double score = 0;                // what ranked it: the log-probability of the whole
};

}  // namespace rustasr
