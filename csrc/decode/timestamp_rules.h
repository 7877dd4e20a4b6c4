#pragma once
// What Whisper may say next. Follows whisper/decoding.py (openai-whisper 20250625): SuppressBlank,
// SuppressTokens, ApplyTimestampRules, in that order.

#include <cstdint>
#include <vector>

#include "decode/autoregressive.h"

namespace rustasr {

struct TimestampTokens {
    int64_t n_vocab;
    int32_t end_of_text;
    int32_t no_timestamps;
    int32_t first;       // <|0.00|>; every id from here on is a timestamp, one per `step` seconds
    float step = 0.02f;  // two mel frames per audio position: 2 · 160 / 16000
};

/// `blank`: ids that may not come first.
LogitFilter whisper_filter(const TimestampTokens& ids, const std::vector<int32_t>& blank,
                           const DecodeOptions& options);

}  // namespace rustasr
