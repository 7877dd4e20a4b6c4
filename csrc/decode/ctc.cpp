#include "decode/ctc.h"

#include <limits>

#include "kernels/elementwise.h"

namespace rustasr {

// gigaam/decoding.py, CTCGreedyDecoding.
Recognized ctc_greedy(const CtcFrames& frames, const SearchOptions& options) {
    Recognized result;
    std::vector<float> row(static_cast<size_t>(frames.n_classes));
    int64_t before = frames.blank_id;
    for (int64_t t = 0; t < frames.n_frames; ++t) {
        row.assign(frames[t], frames[t] + frames.n_classes);
        for (int32_t id : options.suppress)
            row[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
        const int64_t best = kernels::argmax(row.data(), frames.n_classes);
        const float logprob = row[static_cast<size_t>(best)];
        result.score += static_cast<double>(logprob);
        if (best != frames.blank_id && best != before) {
            result.tokens.push_back(static_cast<int32_t>(best));
            result.frames.push_back(static_cast<int32_t>(t));
            result.durations.push_back(1);
            result.logprobs.push_back(logprob);
        }
        before = best;
    }
    return result;
}

std::vector<Recognized> ctc_search(const EncodedFrames& frames, const std::vector<int>& utterances,
                                   const SearchOptions& options) {
    options.check();
    const int64_t n_classes = frames.values->ne[0];
    options.check_ids(static_cast<int32_t>(n_classes - 1));
    frames.check(utterances);
    std::vector<Recognized> results;
    for (int utterance : utterances) {
        const std::vector<float> log_probs = frames.read(utterance);
        const CtcFrames one = {log_probs.data(), frames.lengths[static_cast<size_t>(utterance)], n_classes,
                               static_cast<int32_t>(n_classes - 1)};
        results.push_back(ctc_greedy(one, options));
    }
    return results;
}

}  // namespace rustasr
