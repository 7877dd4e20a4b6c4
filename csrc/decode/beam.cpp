#include "decode/beam.h"

#include <algorithm>
#include <cmath>

namespace rustasr {

void Alignments::add(const Alignments& other) {
    const double high = std::max(score, other.score), low = std::min(score, other.score);
    score = low == kNever ? high : high + std::log1p(std::exp(low - high));
    if (other.path <= path) return;
    path = other.path;
    last = other.last;
}

int32_t Emissions::append(int32_t before, int32_t token, int32_t frame, int32_t duration, float logprob) {
    emissions_.push_back({before, token, frame, duration, logprob});
    return static_cast<int32_t>(emissions_.size() - 1);
}

Recognized Emissions::trace(int32_t last) const {
    Recognized result;
    for (int32_t at = last; at >= 0; at = emissions_[static_cast<size_t>(at)].before) {
        const Emission& emission = emissions_[static_cast<size_t>(at)];
        result.tokens.push_back(emission.token);
        result.frames.push_back(emission.frame);
        result.durations.push_back(emission.duration);
        result.logprobs.push_back(emission.logprob);
    }
    std::reverse(result.tokens.begin(), result.tokens.end());
    std::reverse(result.frames.begin(), result.frames.end());
    std::reverse(result.durations.begin(), result.durations.end());
    std::reverse(result.logprobs.begin(), result.logprobs.end());
    return result;
}

Prefixes::Prefixes(const Hotwords& hotwords, float boost) : hotwords_(hotwords), boost_(boost) {
    nodes_.push_back({-1, Hotwords::kNone, 0});
}

int32_t Prefixes::append(int32_t prefix, int32_t token) {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(prefix)) << 32 | static_cast<uint32_t>(token);
    const auto [at, is_new] = children_.try_emplace(key, static_cast<int32_t>(nodes_.size()));
    if (is_new) {
        const Node parent = node(prefix);
        const Hotwords::Step step = hotwords_.next(parent.match, token);
        nodes_.push_back({token, step.state, parent.matched + step.matched});
    }
    return at->second;
}

double Prefixes::final_bonus(int32_t prefix) const {
    return boost(node(prefix).matched + hotwords_.end(node(prefix).match));
}

double Prefixes::bonus_change(int32_t prefix, int32_t token) const {
    return boost(hotwords_.next(node(prefix).match, token).matched);
}

std::vector<int32_t> Prefixes::candidates(int32_t prefix, const std::vector<int32_t>& top,
                                          const float* logprobs) const {
    std::vector<int32_t> tokens = top;
    if (top.empty()) return tokens;
    const auto add = [&](int32_t state) {
        for (int32_t token : hotwords_.continuations(state)) {
            if (logprobs[token] + boost_ >= logprobs[top.back()] &&
                std::find(tokens.begin(), tokens.end(), token) == tokens.end()) {
                tokens.push_back(token);
            }
        }
    };
    add(Hotwords::kNone);
    if (node(prefix).match != Hotwords::kNone) add(node(prefix).match);
    return tokens;
}

}  // namespace rustasr
