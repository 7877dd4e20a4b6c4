#pragma once
// Searching in the output of a CTC head (Graves et al. 2006).

#include <cstdint>
#include <vector>

#include "decode/recognition.h"

namespace rustasr {

/// Log-probabilities of one utterance on the host, row by row.
struct CtcFrames {
    const float* log_probs;  // [n_frames, n_classes]
    int64_t n_frames;
    int64_t n_classes;
    int32_t blank_id;

    const float* operator[](int64_t t) const { return log_probs + t * n_classes; }
};

/// The likeliest class of every frame; repeats are one token, at the first of their frames.
Recognized ctc_greedy(const CtcFrames& frames, const SearchOptions& options);

/// Prefix beam search (Graves 2008; Hannun et al. 2014, arXiv:1408.2873): token sequences by the sum over
/// their alignments. With a wide beam it is exact.
Recognized ctc_beam(const CtcFrames& frames, const SearchOptions& options);

/// One result per utterance; the blank is the last class. Throws OptionError.
std::vector<Recognized> ctc_search(const EncodedFrames& frames, const std::vector<int>& utterances,
                                   const SearchOptions& options);

}  // namespace rustasr
