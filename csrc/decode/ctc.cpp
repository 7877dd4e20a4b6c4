#include "decode/ctc.h"

#include <algorithm>
#include <limits>
#include <map>

#include "decode/beam.h"
#include "decode/likeliest.h"
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

namespace {

/// A token sequence by the class of its last frame, which decides whether the last token may be repeated.
struct CtcHypothesis {
    Alignments in_token, in_blank;

    Alignments both() const {
        Alignments sum = in_token;
        sum.add(in_blank);
        return sum;
    }
};

using CtcHypotheses = std::map<int32_t, CtcHypothesis>;  // by prefix

CtcHypotheses best_of(const CtcHypotheses& all, const Prefixes& prefixes, size_t n) {
    std::vector<std::pair<double, int32_t>> ranks;
    for (const auto& [prefix, h] : all) ranks.emplace_back(h.both().score + prefixes.bonus(prefix), prefix);
    std::stable_sort(ranks.begin(), ranks.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    ranks.resize(std::min(ranks.size(), n));
    CtcHypotheses best;
    for (const auto& [rank, prefix] : ranks) best[prefix] = all.at(prefix);
    return best;
}

}  // namespace

Recognized ctc_beam(const CtcFrames& frames, const SearchOptions& options) {
    const auto beam_size = static_cast<size_t>(options.beam_size);
    const Hotwords hotwords(options.hotwords);
    Prefixes prefixes(hotwords, options.hotword_boost);
    Emissions emissions;
    CtcHypotheses beam;
    beam[Prefixes::kEmpty].in_blank = {0, 0, -1};
    std::vector<float> row;
    for (int64_t t = 0; t < frames.n_frames; ++t) {
        row.assign(frames[t], frames[t] + frames.n_classes);
        const auto logprob = [&](int32_t id) { return static_cast<double>(row[static_cast<size_t>(id)]); };
        for (int32_t id : options.suppress)
            row[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
        const std::vector<int32_t> top = likeliest(row.data(), frames.blank_id, beam_size);
        CtcHypotheses next;
        for (const auto& [prefix, h] : beam) {
            const int32_t last = prefixes.last_token(prefix);
            next[prefix].in_blank.add(h.both().then(logprob(frames.blank_id)));
            if (last >= 0) next[prefix].in_token.add(h.in_token.then(logprob(last)));
            for (int32_t token : prefixes.candidates(prefix, top, row.data())) {
                // The same token again is a new one only after a blank.
                Alignments more = (token == last ? h.in_blank : h.both()).then(logprob(token));
                if (more.score == Alignments::kNever) continue;
                more.last = emissions.append(more.last, token, static_cast<int32_t>(t), 1,
                                             row[static_cast<size_t>(token)]);
                next[prefixes.append(prefix, token)].in_token.add(more);
            }
        }
        beam = best_of(next, prefixes, beam_size);
    }
    int32_t best = Prefixes::kEmpty;
    double best_score = Alignments::kNever;
    for (const auto& [prefix, h] : beam) {
        const double score = h.both().score + prefixes.final_bonus(prefix);
        if (score <= best_score) continue;
        best = prefix;
        best_score = score;
    }
    Recognized result = emissions.trace(beam.at(best).both().last);
    result.score = best_score;
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
        results.push_back(options.beam_size > 1 ? ctc_beam(one, options) : ctc_greedy(one, options));
    }
    return results;
}

}  // namespace rustasr
