#pragma once
// What the beam searches of CTC and the transducers share. Their hypotheses are token sequences; the
// probability of one is the sum over its alignments, of which the best gives the tokens' frames.

#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "decode/hotwords.h"
#include "decode/recognition.h"

namespace rustasr {

/// The alignments that lead to one place of a search.
struct Alignments {
    static constexpr double kNever = -std::numeric_limits<double>::infinity();
    double score = kNever;  // log-probability of all of them
    double path = kNever;   // of the best of them
    int32_t last = -1;      // the best one's last emission

    void add(const Alignments& other);
    /// All of them, and then something of this log-probability.
    Alignments then(double logprob) const { return {score + logprob, path + logprob, last}; }
};

/// Tokens with their places, as chains from the last one back.
class Emissions {
   public:
    int32_t append(int32_t before, int32_t token, int32_t frame, int32_t duration, float logprob);
    /// The chain that ends here.
    Recognized trace(int32_t last) const;

   private:
    struct Emission {
        int32_t before, token, frame, duration;
        float logprob;
    };
    std::vector<Emission> emissions_;
};

/// The token sequences that a search has met, by number, so that hypotheses which came to the same one by
/// different alignments find each other; and what hotwords add to each.
class Prefixes {
   public:
    static constexpr int32_t kEmpty = 0;  // the sequence without tokens

    Prefixes(const Hotwords& hotwords, float boost);

    /// The sequence with one more token.
    int32_t append(int32_t prefix, int32_t token);
    int32_t last_token(int32_t prefix) const { return node(prefix).token; }  // -1: none
    /// What hotwords add to the log-probability; the end of the sequence may still take some back.
    double bonus(int32_t prefix) const { return boost(node(prefix).matched); }
    double final_bonus(int32_t prefix) const;
    /// What one more token would change the bonus by.
    double bonus_change(int32_t prefix, int32_t token) const;

    /// The n likeliest of the tokens by these log-probabilities, and those that a hotword lifts among them.
    std::vector<int32_t> candidates(int32_t prefix, const std::vector<int32_t>& top,
                                    const float* logprobs) const;

   private:
    struct Node {
        int32_t token;
        int32_t match;  // state of the hotwords
        int matched;    // tokens
    };
    const Node& node(int32_t prefix) const { return nodes_[static_cast<size_t>(prefix)]; }
    double boost(int matched) const { return static_cast<double>(boost_) * matched; }

    const Hotwords& hotwords_;
    float boost_;
    std::vector<Node> nodes_;
    std::unordered_map<uint64_t, int32_t> children_;  // by prefix and token
};

}  // namespace rustasr
