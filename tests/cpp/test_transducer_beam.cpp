// The beam search of RNN-T and TDT against all alignments of small problems.

#include <algorithm>
#include <limits>
#include <map>

#include "check.h"
#include "decode/transducer.h"
#include "decode/transducer_beam.h"
#include "hotword_scan.h"
#include "toy_transducer.h"

namespace {

using namespace rustasr;
using namespace rustasr::test;
using Tokens = std::vector<int32_t>;

constexpr double kNever = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
    const double high = std::max(a, b), low = std::min(a, b);
    return low == kNever ? high : high + std::log1p(std::exp(low - high));
}

struct Alignment {
    Tokens frames, durations;
};
struct Total {
    double score = kNever, path = kNever;
    Alignment best;
};

/// Every token sequence of one utterance with the sum over its alignments and the best of them.
class AllAlignments {
   public:
    AllAlignments(const ToyTransducer& toy, int max_symbols) : toy_(toy), max_symbols_(max_symbols) {
        PlainTransducer::State state = toy.plain.start();
        const Doubles g = toy.plain.predict(toy.file.sizes.n_vocab, state);
        walk(0, 0, {}, {}, 0, g, state);
    }
    std::map<Tokens, Total> totals;

    /// The best by log-probability and boost; the second best's distance in `margin`.
    const std::pair<const Tokens, Total>& best(const std::vector<Tokens>& hotwords, double boost,
                                               double* score, double* margin) const {
        const std::pair<const Tokens, Total>* best = nullptr;
        double second = kNever;
        *score = kNever;
        for (const auto& entry : totals) {
            const double s = entry.second.score + boost * covered(entry.first, hotwords);
            if (s > *score) {
                second = *score;
                *score = s;
                best = &entry;
            } else {
                second = std::max(second, s);
            }
        }
        *margin = *score - second;
        return *best;
    }

   private:
    void walk(int t, int n_symbols, const Tokens& tokens, const Alignment& alignment, double score,
              const Doubles& g, const PlainTransducer::State& state) {
        const int n_frames = toy_.frames.lengths[0], blank = toy_.file.sizes.n_vocab;
        if (t >= n_frames) {
            Total& total = totals[tokens];
            total.score = log_add(total.score, score);
            if (score > total.path) {
                total.path = score;
                total.best = alignment;
            }
            return;
        }
        if (n_symbols == max_symbols_) return walk(t + 1, 0, tokens, alignment, score, g, state);
        const Doubles logits = toy_.plain.joint(toy_.frame(0, t), g);
        const auto n_tokens = static_cast<size_t>(blank) + 1;
        const double normalizer = log_sum_exp(logits.data(), n_tokens);
        const std::vector<int32_t>& durations = toy_.file.sizes.durations;
        const double* tail = logits.data() + n_tokens;
        for (int32_t k = 0; k <= blank; ++k) {
            const double token = score + logits[static_cast<size_t>(k)] - normalizer;
            Tokens more = tokens;
            Alignment longer = alignment;
            PlainTransducer::State next = state;
            Doubles next_g = g;
            if (k != blank) {
                more.push_back(k);
                longer.frames.push_back(t);
                next_g = toy_.plain.predict(k, next);
            }
            for (size_t i = 0; i < std::max<size_t>(durations.size(), 1); ++i) {
                const bool tdt = !durations.empty();
                const int d = tdt ? durations[i] : 0;
                const double both = tdt ? token + tail[i] - log_sum_exp(tail, durations.size()) : token;
                if (k == blank) {
                    walk(t + std::max(d, 1), 0, more, longer, both, next_g, next);
                    continue;
                }
                Alignment with = longer;
                with.durations.push_back(tdt ? d : 1);
                walk(t + d, d == 0 ? n_symbols + 1 : 0, more, with, both, next_g, next);
            }
        }
    }

    const ToyTransducer& toy_;
    int max_symbols_;
};

ToySizes sizes_of(int n_vocab, std::vector<int32_t> durations) {
    ToySizes sizes;
    sizes.n_vocab = n_vocab;
    sizes.durations = std::move(durations);
    sizes.pred_layers = 1;
    sizes.pred_hidden = 4;
    sizes.joint_hidden = 5;
    sizes.blank_bias = 1;
    return sizes;
}

/// So wide and so generous that nothing is dropped.
SearchOptions everything() {
    SearchOptions options;
    options.beam_size = 1000000;
    options.expansion_gamma = std::numeric_limits<float>::infinity();
    return options;
}

Recognized search(ToyTransducer& toy, int max_symbols, const SearchOptions& options) {
    TransducerNetwork network(toy.backend, toy.head);
    return transducer_beam(network, {toy.frames.read(0)}, max_symbols, options).front();
}

struct Case {
    ToySizes sizes;
    int n_frames, max_symbols;
};

std::vector<Case> cases() {
    return {{sizes_of(2, {}), 4, 2},     {sizes_of(3, {}), 3, 2},        {sizes_of(2, {}), 3, 3},
            {sizes_of(2, {}), 5, 1},     {sizes_of(2, {0, 1, 2}), 4, 2}, {sizes_of(2, {1, 3}), 5, 2},
            {sizes_of(3, {0, 2}), 3, 2}, {sizes_of(1, {0, 1, 4}), 4, 3}};
}

}  // namespace

TEST_CASE("transducer beam: a wide beam finds the best of all token sequences") {
    for (const Case& c : cases()) {
        for (uint32_t seed = 0; seed < 6; ++seed) {
            ToyTransducer toy(c.sizes, seed, 1);
            toy.make_frames({c.n_frames}, seed);
            const AllAlignments all(toy, c.max_symbols);
            double sum = kNever, score = 0, margin = 0;
            for (const auto& [tokens, total] : all.totals) sum = log_add(sum, total.score);
            CHECK_NEAR(sum, 0, 1e-9);  // they are all there is
            const auto& [tokens, total] = all.best({}, 0, &score, &margin);
            const Recognized found = search(toy, c.max_symbols, everything());
            CHECK_NEAR(found.score, score, 1e-4);
            if (margin < 1e-3) continue;
            CHECK(found.tokens == tokens);
            CHECK(found.frames == total.best.frames);
            CHECK(found.durations == total.best.durations);
        }
    }
}

TEST_CASE("transducer beam: with hotwords it finds the best of all by probability and boost") {
    int changed = 0;
    for (const Case& c : cases()) {
        for (uint32_t seed = 0; seed < 6; ++seed) {
            ToyTransducer toy(c.sizes, seed, 1);
            toy.make_frames({c.n_frames}, seed);
            const AllAlignments all(toy, c.max_symbols);
            SearchOptions options = everything();
            const int32_t last = c.sizes.n_vocab - 1;
            options.hotwords = {{last, 0}, {0, last, last}};
            options.hotword_boost = 0.8f;
            double score = 0, plain_score = 0, margin = 0;
            const Tokens plain = all.best({}, 0, &plain_score, &margin).first;
            const auto& [tokens, total] = all.best(options.hotwords, 0.8, &score, &margin);
            const Recognized found = search(toy, c.max_symbols, options);
            CHECK_NEAR(found.score, score, 1e-4);
            if (margin < 1e-3) continue;
            CHECK(found.tokens == tokens);
            CHECK(found.frames == total.best.frames);
            changed += tokens != plain;
        }
    }
    CHECK(changed >= 3);
}

TEST_CASE("transducer beam: a narrow beam never claims more than the sum over all alignments") {
    int exact = 0, all_cases = 0;
    for (const Case& c : cases()) {
        for (uint32_t seed = 0; seed < 6; ++seed) {
            ToyTransducer toy(c.sizes, seed, 1);
            toy.make_frames({c.n_frames}, seed);
            const AllAlignments all(toy, c.max_symbols);
            SearchOptions options;
            options.beam_size = 4;
            const Recognized found = search(toy, c.max_symbols, options);
            REQUIRE(all.totals.count(found.tokens) == 1);
            CHECK(found.score <= all.totals.at(found.tokens).score + 1e-4);
            double score = 0, margin = 0;
            exact += all.best({}, 0, &score, &margin).first == found.tokens;
            ++all_cases;
        }
    }
    CHECK(exact > all_cases * 3 / 4);
}

TEST_CASE("transducer beam: log-probabilities belong to the tokens and frames") {
    ToyTransducer toy(sizes_of(3, {0, 1, 2}), 5, 1);
    toy.make_frames({12}, 5);
    SearchOptions options;
    options.beam_size = 5;
    const Recognized found = Transducer(toy.backend, toy.head).recognize(toy.frames, {0}, options).front();
    REQUIRE(!found.tokens.empty());
    PlainTransducer::State state = toy.plain.start();
    Doubles g = toy.plain.predict(3, state);
    for (size_t i = 0; i < found.tokens.size(); ++i) {
        const Doubles logits = toy.plain.joint(toy.frame(0, found.frames[i]), g);
        CHECK_NEAR(found.logprobs[i],
                   logits[static_cast<size_t>(found.tokens[i])] - log_sum_exp(logits.data(), 4), 1e-4);
        g = toy.plain.predict(found.tokens[i], state);
    }
}

TEST_CASE("transducer beam: utterances together give what each gives alone") {
    for (const auto& durations : {Tokens{}, Tokens{0, 1, 2, 3, 4}}) {
        ToyTransducer toy(sizes_of(5, durations), 3);
        toy.make_frames({9, 0, 20, 1, 14}, 2);
        Transducer transducer(toy.backend, toy.head);
        SearchOptions options;
        options.beam_size = 6;
        options.hotwords = {{1, 2}, {4}};
        const std::vector<Recognized> together = transducer.recognize(toy.frames, {2, 0, 1, 3, 4}, options);
        for (size_t i = 0; i < 5; ++i) {
            const int utterance = std::vector<int>{2, 0, 1, 3, 4}[i];
            const Recognized alone = transducer.recognize(toy.frames, {utterance}, options).front();
            CHECK(together[i].tokens == alone.tokens);
            CHECK(together[i].frames == alone.frames);
            CHECK(together[i].durations == alone.durations);
            CHECK(together[i].logprobs == alone.logprobs);
            CHECK(together[i].score == alone.score);
        }
        CHECK(together[2].tokens.empty());
        CHECK(together[2].score == 0);
    }
}

TEST_CASE("transducer beam: suppressed ids are never emitted, not even as hotwords") {
    for (const auto& durations : {Tokens{}, Tokens{0, 1, 2}}) {
        ToyTransducer toy(sizes_of(5, durations), 7);
        toy.make_frames({30}, 2);
        Transducer transducer(toy.backend, toy.head);
        SearchOptions options;
        options.beam_size = 4;
        const Recognized free = transducer.recognize(toy.frames, {0}, options).front();
        REQUIRE(!free.tokens.empty());
        options.suppress = {free.tokens.front()};
        options.hotwords = {{free.tokens.front()}};
        options.hotword_boost = 20;
        const Recognized found = transducer.recognize(toy.frames, {0}, options).front();
        CHECK(std::count(found.tokens.begin(), found.tokens.end(), free.tokens.front()) == 0);
        options.suppress = {};
        const Recognized loud = transducer.recognize(toy.frames, {0}, options).front();
        CHECK(std::count(loud.tokens.begin(), loud.tokens.end(), free.tokens.front()) >
              std::count(free.tokens.begin(), free.tokens.end(), free.tokens.front()));
    }
}

TEST_CASE("transducer beam: a hotword that never fits changes nothing") {
    ToyTransducer toy(sizes_of(5, {0, 1, 2}), 7);
    toy.make_frames({30}, 2);
    Transducer transducer(toy.backend, toy.head);
    SearchOptions options;
    options.beam_size = 4;
    const Recognized plain = transducer.recognize(toy.frames, {0}, options).front();
    options.hotword_boost = 0.01f;
    options.hotwords = {Tokens(40, 3)};  // longer than the utterance
    const Recognized found = transducer.recognize(toy.frames, {0}, options).front();
    CHECK(found.tokens == plain.tokens);
    CHECK_NEAR(found.score, plain.score, 1e-9);
}
