#include "decode/timestamp_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/elementwise.h"

namespace rustasr {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void forbid(float* logits, int64_t from, int64_t to) {
    if (from < to) std::fill(logits + from, logits + to, kNever);
}

void apply_timestamp_rules(const TimestampTokens& ids, float max_initial, const std::vector<int32_t>& tokens,
                           float* logits) {
    const size_t n = tokens.size();
    const bool last = n >= 1 && tokens[n - 1] >= ids.first;
    const bool before_last = n < 2 || tokens[n - 2] >= ids.first;
    logits[ids.no_timestamps] = kNever;

    // Timestamps come in pairs, except directly before the end.
    if (last && before_last) forbid(logits, ids.first, ids.n_vocab);
    if (last && !before_last) forbid(logits, 0, ids.end_of_text);

    // They never decrease, and a segment is not empty.
    const auto latest =
        std::find_if(tokens.rbegin(), tokens.rend(), [&](int32_t t) { return t >= ids.first; });
    if (latest != tokens.rend()) {
        const int32_t from = last && !before_last ? *latest : *latest + 1;
        forbid(logits, ids.first, std::min<int64_t>(from, ids.n_vocab));
    }
    if (tokens.empty()) {
        forbid(logits, 0, ids.first);
        forbid(logits, ids.first + std::lround(max_initial / ids.step) + 1, ids.n_vocab);
    }

    // When some timestamp is likelier than any single text token, it is a timestamp.
    const float stamp = kernels::log_sum_exp(logits + ids.first, ids.n_vocab - ids.first);
    const int64_t likeliest = kernels::argmax(logits, ids.first);
    const float text = likeliest < 0 ? kNever : logits[likeliest];
    if (stamp > text) forbid(logits, 0, ids.first);
}

}  // namespace

LogitFilter whisper_filter(const TimestampTokens& ids, const std::vector<int32_t>& blank,
                           const DecodeOptions& options) {
    return [ids, blank, options](const std::vector<int32_t>& tokens, float* logits) {
        if (options.suppress_blank && tokens.empty()) {
            for (int32_t id : blank) logits[id] = kNever;
        }
        for (int32_t id : options.suppress) logits[id] = kNever;
        if (options.timestamps) apply_timestamp_rules(ids, options.max_initial_timestamp, tokens, logits);
    };
}

}  // namespace rustasr
