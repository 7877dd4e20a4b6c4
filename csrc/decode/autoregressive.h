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
    // Beams end when patience·beam_size texts have ended (Whisper), or else when none that goes on scores
    // better than the worst of so many that have.
    bool early_stopping = true;
    std::optional<float> length_penalty;  // none: the mean log-probability ranks
    int best_of = 1;                      // samples per window when temperature > 0
    int max_tokens = 224;
    uint64_t seed = 0;
    bool timestamps = true;
    float max_initial_timestamp = 1.0f;  // seconds
    std::vector<int32_t> suppress;
    bool suppress_blank = true;
    // A window stops when its text ends in one pattern, repeated at least loop_repeats times and over at
    // least loop_tokens tokens. 0 tokens: never.
    int loop_tokens = 0;
    int loop_repeats = 4;

    /// Throws OptionError.
    void check() const;
    /// Rows that a window needs at a step.
    int n_rows() const { return temperature > 0 ? best_of : beam_size > 1 ? beam_size : 1; }
};

/// Why a window's decoding ended.
enum class Finish {
    Stop,    // a stop token
    Length,  // max_tokens, or no room is left
    Loop,    // loop_tokens
    Caller,  // OnToken said so
};

struct Decoded {
    std::vector<int32_t> tokens;  // without the stop token
    std::vector<float> logprobs;  // one per token, then that of the stop token if it was reached
    Finish finish = Finish::Length;
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

/// Told of every token as it is chosen (stop tokens too); false ends that window.
using OnToken = std::function<bool(int window, int32_t token, float logprob)>;

/// Whether `tokens` ends in one pattern, repeated at least `repeats` times and over at least `n_tokens`
/// tokens.
bool ends_in_loop(const std::vector<int32_t>& tokens, int n_tokens, int repeats);

/// One Decoded per window; no_speech_prob is left to the caller. `options` must have been checked. `on_token`
/// may be empty; with several rows per window it is an OptionError.
std::vector<Decoded> search(StepModel& model, int n_windows, const std::vector<int32_t>& stop_tokens,
                            const LogitFilter& filter, const DecodeOptions& options,
                            const OnToken& on_token = {});

}  // namespace rustasr
