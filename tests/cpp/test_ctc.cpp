// Searching in random CTC outputs.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "check.h"
#include "core/backend.h"
#include "core/error.h"
#include "decode/ctc.h"
#include "hotword_scan.h"
#include "kernels/elementwise.h"

namespace {

using namespace rustasr;

/// Log-probabilities of one utterance.
struct Output {
    std::vector<float> log_probs;
    int64_t n_frames, n_classes;
    CtcFrames frames() const {
        return {log_probs.data(), n_frames, n_classes, static_cast<int32_t>(n_classes - 1)};
    }
};

Output random_output(int64_t n_frames, int64_t n_classes, uint32_t seed, float spread = 2) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, spread);
    Output output{std::vector<float>(static_cast<size_t>(n_frames * n_classes)), n_frames, n_classes};
    for (float& v : output.log_probs) v = normal(random);
    for (int64_t t = 0; t < n_frames; ++t) {
        float* row = &output.log_probs[static_cast<size_t>(t * n_classes)];
        const float normalizer = kernels::log_sum_exp(row, n_classes);
        for (int64_t i = 0; i < n_classes; ++i) row[i] -= normalizer;
    }
    return output;
}

/// An output whose frames are certain of these classes; `other` is the probability of all the others
/// together.
Output certain_output(const std::vector<int>& classes, int64_t n_classes, float other = 0.01f) {
    Output output{{}, static_cast<int64_t>(classes.size()), n_classes};
    for (int c : classes) {
        for (int64_t i = 0; i < n_classes; ++i) {
            output.log_probs.push_back(
                std::log(i == c ? 1 - other : other / static_cast<float>(n_classes - 1)));
        }
    }
    return output;
}

using Tokens = std::vector<int32_t>;

struct Total {
    double score = -std::numeric_limits<double>::infinity(), path = score;
    Tokens frames;
};

/// Every token sequence with the sum over its alignments, and the frames of the best one.
std::map<Tokens, Total> all_paths(const Output& output) {
    std::map<Tokens, Total> totals;
    const auto blank = static_cast<int32_t>(output.n_classes - 1);
    Tokens path(static_cast<size_t>(output.n_frames), 0);
    while (true) {
        Tokens tokens, frames;
        double score = 0;
        for (size_t t = 0; t < path.size(); ++t) {
            score += static_cast<double>(output.frames()[static_cast<int64_t>(t)][path[t]]);
            if (path[t] == blank || (t > 0 && path[t] == path[t - 1])) continue;
            tokens.push_back(path[t]);
            frames.push_back(static_cast<int32_t>(t));
        }
        Total& total = totals[tokens];
        const double high = std::max(total.score, score);
        total.score = high + std::log(std::exp(total.score - high) + std::exp(score - high));
        if (score > total.path) total.path = score, total.frames = frames;
        size_t t = 0;
        while (t < path.size() && path[t] == blank) path[t++] = 0;
        if (t == path.size()) return totals;
        ++path[t];
    }
}

/// The best by log-probability and boost.
std::pair<Tokens, double> best_of(const std::map<Tokens, Total>& totals, const std::vector<Tokens>& hotwords,
                                  double boost) {
    std::pair<Tokens, double> best = {{}, -std::numeric_limits<double>::infinity()};
    for (const auto& [tokens, total] : totals) {
        const double score = total.score + boost * test::covered(tokens, hotwords);
        if (score > best.second) best = {tokens, score};
    }
    return best;
}

SearchOptions beam(int size, std::vector<Tokens> hotwords = {}, float boost = 1.5f) {
    SearchOptions options;
    options.beam_size = size;
    options.hotwords = std::move(hotwords);
    options.hotword_boost = boost;
    return options;
}

}  // namespace

TEST_CASE("ctc: a wide beam finds the best of all token sequences") {
    int not_greedy = 0;
    for (uint32_t seed = 0; seed < 40; ++seed) {
        for (const auto& [n_frames, n_classes] : {std::pair<int64_t, int64_t>{7, 3}, {5, 4}, {1, 4}}) {
            const Output output = random_output(n_frames, n_classes, seed, 1);
            const auto totals = all_paths(output);
            const auto [tokens, score] = best_of(totals, {}, 0);
            const Recognized found = ctc_beam(output.frames(), beam(100000));
            CHECK(found.tokens == tokens);
            CHECK(found.frames == totals.at(tokens).frames);
            CHECK_NEAR(found.score, score, 1e-5);
            for (size_t i = 0; i < tokens.size(); ++i)
                CHECK(found.logprobs[i] == output.frames()[found.frames[i]][found.tokens[i]]);
            not_greedy += found.tokens != ctc_greedy(output.frames(), {}).tokens;
        }
    }
    CHECK(not_greedy > 5);
}

TEST_CASE("ctc: with a hotword a wide beam finds the best of all by probability and boost") {
    int changed = 0;
    for (uint32_t seed = 0; seed < 60; ++seed) {
        const Output output = random_output(5, 4, seed, 1);
        const auto totals = all_paths(output);
        const auto a = static_cast<int32_t>(seed % 3), b = static_cast<int32_t>(seed % 2);
        const std::vector<Tokens> phrases = {{a, b}, {a, b, a}, {b, 2}};
        const auto [tokens, score] = best_of(totals, phrases, 0.5);
        const Recognized found = ctc_beam(output.frames(), beam(100000, phrases, 0.5f));
        CHECK(found.tokens == tokens);
        CHECK_NEAR(found.score, score, 1e-5);
        changed += tokens != best_of(totals, {}, 0).first;
    }
    CHECK(changed > 5);
}

TEST_CASE("ctc: a narrow beam never claims more than the sum over all alignments") {
    for (uint32_t seed = 0; seed < 40; ++seed) {
        const Output output = random_output(7, 4, seed, 2);
        const Recognized found = ctc_beam(output.frames(), beam(3));
        CHECK(found.score <= all_paths(output).at(found.tokens).score + 1e-5);
        CHECK(found.score >= ctc_greedy(output.frames(), {}).score - 1);
    }
}

TEST_CASE("ctc: hotwords decide what is close, and nothing where their match breaks off") {
    // Frames say 0, then 1 rather than 2, then 3; the blank is 4.
    Output output = certain_output({0, 1, 3}, 5);
    output.log_probs[5 + 1] = std::log(0.6f);
    output.log_probs[5 + 2] = std::log(0.37f);
    const auto tokens = [&](std::vector<Tokens> hotwords, float boost) {
        return ctc_beam(output.frames(), beam(8, std::move(hotwords), boost)).tokens;
    };
    CHECK((tokens({}, 1) == Tokens{0, 1, 3}));
    CHECK((tokens({{0, 2}}, 1) == Tokens{0, 2, 3}));
    CHECK((tokens({{2}}, 1) == Tokens{0, 2, 3}));
    CHECK((tokens({{2}}, 0.2f) == Tokens{0, 1, 3}));
    CHECK((tokens({{0, 2, 0}}, 1) == Tokens{0, 1, 3}));  // its last token is not there
    CHECK((tokens({{0, 2, 3}, {1}}, 1) == Tokens{0, 2, 3}));
    const double plain = ctc_beam(output.frames(), beam(8)).score;
    CHECK_NEAR(ctc_beam(output.frames(), beam(8, {{0, 2, 0}}, 1)).score, plain, 1e-6);
    CHECK_NEAR(ctc_beam(output.frames(), beam(8, {{0, 1}}, 1)).score, plain + 2, 1e-6);
}

TEST_CASE("ctc: a hotword may lift tokens that a narrow beam would not look at") {
    Output output = certain_output({0, 0, 0}, 9);
    for (int i = 1; i < 8; ++i)
        output.log_probs[9 + static_cast<size_t>(i)] = std::log(0.1f) - 0.1f * static_cast<float>(i);
    output.log_probs[9] = std::log(0.15f);
    CHECK((ctc_beam(output.frames(), beam(2, {{7}}, 4)).tokens == Tokens{0, 7, 0}));
    SearchOptions options = beam(2, {{7}}, 40);
    options.suppress = {7};
    for (int32_t token : ctc_beam(output.frames(), options).tokens) CHECK(token != 7);
}

TEST_CASE("ctc: greedy joins repeats, keeps those that a blank parts, and tells the first frame") {
    const Output output = certain_output({4, 2, 2, 4, 2, 0, 0, 1, 4, 4, 1}, 5);
    const Recognized found = ctc_greedy(output.frames(), {});
    CHECK((found.tokens == std::vector<int32_t>{2, 2, 0, 1, 1}));
    CHECK((found.frames == std::vector<int32_t>{1, 4, 5, 7, 10}));
    CHECK(found.durations == std::vector<int32_t>(5, 1));
    for (float logprob : found.logprobs) CHECK_NEAR(logprob, std::log(0.99), 1e-5);
    CHECK_NEAR(found.score, 11 * std::log(0.99), 1e-4);
    CHECK(ctc_greedy(certain_output({}, 5).frames(), {}).tokens.empty());
}

TEST_CASE("ctc: suppressed ids are never emitted") {
    const Output output = random_output(60, 7, 1);
    SearchOptions options;
    options.suppress = {2, 5};
    bool occurs = false;
    for (int32_t token : ctc_greedy(output.frames(), {}).tokens) occurs |= token == 2 || token == 5;
    CHECK(occurs);
    for (int32_t token : ctc_greedy(output.frames(), options).tokens) CHECK(token != 2 && token != 5);
}

TEST_CASE("ctc: utterances of a batch are searched by their own lengths") {
    Backend backend(find_device("cpu"), 1);
    const ggml_context_ptr context(ggml_init({ggml_tensor_overhead(), nullptr, true}));
    EncodedFrames encoded;
    encoded.values = ggml_new_tensor_3d(context.get(), GGML_TYPE_F32, 5, 9, 3);
    encoded.lengths = {9, 4, 0};
    const ggml_backend_buffer_ptr buffer = backend.allocate(context.get(), "frames");
    const Output output = random_output(27, 5, 2);
    ggml_backend_tensor_set(encoded.values, output.log_probs.data(), 0, 4 * output.log_probs.size());
    const std::vector<Recognized> found = ctc_search(encoded, {1, 2, 0}, {});
    REQUIRE(found.size() == 3);
    CHECK(found[0].tokens == ctc_greedy({&output.log_probs[45], 4, 5, 4}, {}).tokens);
    CHECK(found[1].tokens.empty());
    CHECK(found[2].tokens == ctc_greedy({output.log_probs.data(), 9, 5, 4}, {}).tokens);
    CHECK_THROWS(ctc_search(encoded, {3}, {}), OptionError, "utterance");
    SearchOptions options;
    options.suppress = {4};
    CHECK_THROWS(ctc_search(encoded, {0}, options), OptionError, "suppress: expected ids of 0 to 3, found 4");
}
