#pragma once
// When each token was said, from the decoder's cross-attention. Follows whisper/timing.py (openai-whisper
// 20250625): find_alignment, median_filter, dtw.

#include <cstdint>
#include <vector>

namespace rustasr {

struct TokenAlignment {
    std::vector<float> probabilities;  // of each text token, among text tokens
    std::vector<float> times;  // seconds in the window at which each text token, then end-of-text, starts
};

/// scores: n_heads matrices [n_tokens, n_columns] of attention before the softmax, one after the other.
/// Softmax over time, each column of a head normalised over the tokens, median filter of 7 columns, mean over
/// heads. Returns [n_tokens, n_columns].
std::vector<float> attention_weights(const std::vector<const float*>& scores, int64_t n_tokens,
                                     int64_t n_columns, int64_t row_stride);

/// The cheapest monotone path through -weights [n_rows, n_columns]; for every row the column where it begins.
std::vector<int32_t> dtw_starts(const float* weights, int64_t n_rows, int64_t n_columns);

}  // namespace rustasr
