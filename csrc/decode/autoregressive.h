#pragma once
// Searching for token sequences with an autoregressive network: greedy, best of several samples, or beam
// search, over several windows at once. Follows whisper/decoding.py (openai-whisper 20250625): GreedyDecoder,
// BeamSearchDecoder, MaximumLikelihoodRanker. The network is behind StepModel; what it may say at a step is
// behind LogitFilter.

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <vector>

namespace rustasr {

struct DecodeOptions {
    float temperature = 0;
    int beam_size = 0;  // 0 or 1: greedy
    float patience = 1;
    std::optional<float> length_penalty;  // none: the mean log-probability ranks
    int best_of = 1;                      // samples per window when temperature > 0
    int max_tokens = 224;
    uint64_t seed = 0;
    bool timestamps = true;
    float max_initial_timestamp = 1.0f;  // seconds
    std::vector<int32_t> suppress;
    bool suppress_blank = true;

    /// Throws OptionError.
    void check() const;
    /// Rows that a window needs at a step.
    int n_rows() const { return temperature > 0 ? best_of : beam_size > 1 ? beam_size : 1; }
};

struct Decoded {
    std::vector<int32_t> tokens;  // without end-of-text
    std::vector<float> logprobs;  // one per token, then that of end-of-text if it was reached
    double sum_logprob = 0;
    double avg_logprob = 0;  // sum / (tokens + 1)
    double score = 0;        // what ranked it
    float no_speech_prob = 0;
};

/// A continuation of one hypothesis: the row it came from and its new token.
struct Branch {
    int parent;
    int32_t token;
};

/// Sets forbidden logits of one row to -inf. `tokens`: what the hypothesis has sampled so far.
using LogitFilter = std::function<void(const std::vector<int32_t>& tokens, float* logits)>;

/// What the search needs of a network over W windows. Rows of logits are the search's to overwrite until the
/// next call.
class StepModel {
   public:
    virtual ~StepModel() = default;
    virtual int64_t n_vocab() const = 0;
    /// Most tokens that window w may still grow by.
    virtual int room(int window) const = 0;
    /// Logits after the prompt of window w.
    virtual float* prompt_logits(int window) = 0;
    /// Feeds the branches of each window (none for a window that is done).
    virtual void step(const std::vector<std::vector<Branch>>& branches) = 0;
    /// Logits after branch `row` of window w in the last step.
    virtual float* step_logits(int window, int row) = 0;
};

/// One Decoded per window; no_speech_prob is left to the caller. `options` must have been checked.
std::vector<Decoded> search(StepModel& model, int n_windows, int32_t end_of_text, const LogitFilter& filter,
                            const DecodeOptions& options);

}  // namespace rustasr
