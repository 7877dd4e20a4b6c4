#include "decode/transducer_beam.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "decode/beam.h"
#include "decode/likeliest.h"
#include "kernels/elementwise.h"

namespace rustasr {
namespace {

struct Hypothesis {
    int32_t prefix = Prefixes::kEmpty;
    Alignments alignments;
    PredictionPtr before;      // of the prefix without its last token
    PredictionPtr prediction;  // of the prefix; null until somebody asks the joint network
};

/// Hypotheses at the same place, one for each token sequence.
class Place {
   public:
    void add(const Hypothesis& h) {
        const auto [at, is_new] = hypotheses_.try_emplace(h.prefix, h);
        if (is_new) return;
        at->second.alignments.add(h.alignments);
        if (!at->second.prediction) at->second.prediction = h.prediction;
    }
    const std::map<int32_t, Hypothesis>& hypotheses() const { return hypotheses_; }

   private:
    std::map<int32_t, Hypothesis> hypotheses_;
};

/// The search in one utterance. Its hypotheses wait at the frame that they look at next; those of the
/// earliest such frame, with equally many tokens on it, are the frontier.
class UtteranceSearch {
   public:
    UtteranceSearch(const TransducerConfig& config, const Hotwords& hotwords, const SearchOptions& options,
                    int max_symbols, const std::vector<float>& frames, const PredictionPtr& start)
        : config_(config),
          options_(options),
          max_symbols_(max_symbols),
          frames_(frames),
          n_frames_(static_cast<int>(frames.size() / static_cast<size_t>(config.joint_hidden))),
          prefixes_(hotwords, options.hotword_boost) {
        Hypothesis h;
        h.alignments = {0, 0, -1};
        h.prediction = start;
        waiting_[0].add(h);
        next_frame();
    }

    std::vector<Hypothesis>& frontier() { return frontier_; }  // empty at the end
    const float* frame() const {
        return &frames_[static_cast<size_t>(t_) * static_cast<size_t>(config_.joint_hidden)];
    }
    PredictionInput missing(const Hypothesis& h) const {
        return {h.before.get(), prefixes_.last_token(h.prefix)};
    }
    void predicted(Hypothesis& h, PredictionPtr prediction) {
        h.prediction = std::move(prediction);
        known_[h.prefix] = h.prediction;
    }
    /// Takes the logits of every hypothesis of the frontier, and finds the next frontier.
    void expand(float* logits);
    Recognized best() const;

   private:
    void expand(const Hypothesis& h, float* logits, Place& staying);
    void arrive(int t, const Hypothesis& h) { waiting_[std::min(t, n_frames_)].add(h); }
    void next_frame();
    double rank(const Hypothesis& h) const { return h.alignments.score + prefixes_.bonus(h.prefix); }
    std::vector<Hypothesis> best_of(const Place& place, double at_least) const;
    double worst_that_left() const;

    const TransducerConfig& config_;
    const SearchOptions& options_;
    int max_symbols_;
    const std::vector<float>& frames_;
    int n_frames_;

    Prefixes prefixes_;
    Emissions emissions_;
    std::map<int, Place> waiting_;                                        // by frame; n_frames_: at the end
    std::unordered_map<int32_t, std::weak_ptr<const Prediction>> known_;  // by prefix, while somebody uses it
    int t_ = 0;
    int n_symbols_ = 0;  // that the frontier has emitted on this frame
    std::vector<Hypothesis> frontier_;
};

void UtteranceSearch::expand(float* logits) {
    Place staying;
    for (const Hypothesis& h : frontier_) {
        expand(h, logits, staying);
        logits += config_.n_classes();
    }
    ++n_symbols_;
    frontier_ = best_of(staying, worst_that_left());
    if (n_symbols_ == max_symbols_) {  // on to the next frame, whatever the network says
        for (const Hypothesis& h : frontier_) arrive(t_ + 1, h);
        frontier_.clear();
    }
    if (frontier_.empty()) next_frame();
}

void UtteranceSearch::expand(const Hypothesis& h, float* logits, Place& staying) {
    struct Expansion {
        int32_t token;
        int duration;
        double logprob;  // of token and duration
        double value;    // the same with what hotwords add
    };
    const int32_t blank = config_.blank_id;
    const float normalizer = kernels::log_sum_exp(logits, config_.n_tokens());
    for (int32_t id : options_.suppress) logits[id] = -std::numeric_limits<float>::infinity();
    const float* durations = logits + config_.n_tokens();
    const auto n_durations = static_cast<int64_t>(config_.durations.size());
    const float duration_normalizer = kernels::log_sum_exp(durations, n_durations);

    std::vector<Expansion> expansions;
    const auto consider = [&](int32_t token, double bonus) {
        const double logprob = static_cast<double>(logits[token] - normalizer);
        for (size_t i = 0; i < config_.durations.size(); ++i) {
            const double both = logprob + static_cast<double>(durations[i] - duration_normalizer);
            expansions.push_back({token, config_.durations[i], both, both + bonus});
        }
        if (!config_.is_tdt()) expansions.push_back({token, 0, logprob, logprob + bonus});
    };
    consider(blank, 0);
    const std::vector<int32_t> top =
        likeliest(logits, config_.n_vocab, static_cast<size_t>(options_.beam_size));
    for (int32_t token : prefixes_.candidates(h.prefix, top, logits))
        consider(token, prefixes_.bonus_change(h.prefix, token));

    double best = Alignments::kNever;
    for (const Expansion& e : expansions) best = std::max(best, e.value);
    for (const Expansion& e : expansions) {
        if (e.value < best - static_cast<double>(options_.expansion_gamma)) continue;
        Hypothesis next = h;
        next.alignments = h.alignments.then(e.logprob);
        if (e.token == blank) {
            arrive(t_ + std::max(e.duration, 1), next);
            continue;
        }
        next.prefix = prefixes_.append(h.prefix, e.token);
        next.alignments.last = emissions_.append(
            h.alignments.last, e.token, t_, config_.is_tdt() ? e.duration : 1, logits[e.token] - normalizer);
        next.before = h.prediction;
        next.prediction = known_[next.prefix].lock();
        if (e.duration == 0) {
            staying.add(next);
        } else {
            arrive(t_ + e.duration, next);
        }
    }
}

void UtteranceSearch::next_frame() {
    n_symbols_ = 0;
    const auto first = waiting_.begin();
    if (first->first == n_frames_) return;
    t_ = first->first;
    frontier_ = best_of(first->second, Alignments::kNever);
    waiting_.erase(first);
}

std::vector<Hypothesis> UtteranceSearch::best_of(const Place& place, double at_least) const {
    std::vector<Hypothesis> list;
    for (const auto& [prefix, h] : place.hypotheses()) {
        if (rank(h) >= at_least) list.push_back(h);
    }
    std::stable_sort(list.begin(), list.end(),
                     [&](const Hypothesis& a, const Hypothesis& b) { return rank(a) > rank(b); });
    list.resize(std::min(list.size(), static_cast<size_t>(options_.beam_size)));
    return list;
}

// Hypotheses that stay on the frame must pay for more; where a whole beam has left with a better rank, they
// are not worth it.
double UtteranceSearch::worst_that_left() const {
    std::vector<double> ranks;
    for (const auto& [t, place] : waiting_) {
        for (const auto& [prefix, h] : place.hypotheses()) ranks.push_back(rank(h));
    }
    const auto n = static_cast<size_t>(options_.beam_size);
    if (ranks.size() < n) return Alignments::kNever;
    std::nth_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(n - 1), ranks.end(),
                     std::greater<>());
    return ranks[n - 1];
}

Recognized UtteranceSearch::best() const {
    int32_t last = -1;
    double best = Alignments::kNever;
    for (const auto& [prefix, h] : waiting_.at(n_frames_).hypotheses()) {
        const double score = h.alignments.score + prefixes_.final_bonus(prefix);
        if (score <= best) continue;
        best = score;
        last = h.alignments.last;
    }
    Recognized result = emissions_.trace(last);
    result.score = best;
    return result;
}

/// What the joint network needs of the frontiers is computed in one go.
void predict_missing(TransducerNetwork& network, std::vector<UtteranceSearch>& searches) {
    std::vector<Hypothesis*> missing;
    std::vector<UtteranceSearch*> owners;
    std::vector<PredictionInput> inputs;
    for (UtteranceSearch& search : searches) {
        for (Hypothesis& h : search.frontier()) {
            if (h.prediction) continue;
            missing.push_back(&h);
            inputs.push_back(search.missing(h));
            owners.push_back(&search);
        }
    }
    const std::vector<PredictionPtr> predictions = network.predict(inputs);
    for (size_t i = 0; i < missing.size(); ++i) owners[i]->predicted(*missing[i], predictions[i]);
}

}  // namespace

std::vector<Recognized> transducer_beam(TransducerNetwork& network,
                                        const std::vector<std::vector<float>>& frames, int max_symbols,
                                        const SearchOptions& options) {
    const Hotwords hotwords(options.hotwords);
    std::vector<UtteranceSearch> searches;
    for (const std::vector<float>& f : frames)
        searches.emplace_back(network.config(), hotwords, options, max_symbols, f, network.start());
    while (true) {
        predict_missing(network, searches);
        std::vector<JointInput> inputs;
        for (UtteranceSearch& search : searches) {
            for (const Hypothesis& h : search.frontier())
                inputs.push_back({search.frame(), h.prediction->output.data()});
        }
        if (inputs.empty()) break;
        float* logits = network.joint(inputs);
        for (UtteranceSearch& search : searches) {
            const size_t n_rows = search.frontier().size();
            if (n_rows) search.expand(logits);
            logits += n_rows * static_cast<size_t>(network.config().n_classes());
        }
    }
    std::vector<Recognized> results;
    for (const UtteranceSearch& search : searches) results.push_back(search.best());
    return results;
}

}  // namespace rustasr
