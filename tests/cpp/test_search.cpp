// Searching with a toy network whose logits depend on the last two tokens only, so that the best sequence can
// also be found by trying them all.

#include <algorithm>
#include <cmath>
#include <random>

#include "check.h"
#include "core/error.h"
#include "decode/autoregressive.h"

namespace {

using namespace rustasr;

constexpr int kVocab = 5;
constexpr int32_t kEnd = 4;

/// Deterministic logits from (window, last two tokens); keeps the history of every row as the search reorders
/// them.
class ToyModel : public StepModel {
   public:
    ToyModel(int n_windows, uint32_t seed, int room = 100)
        : room_(room), tables_(static_cast<size_t>(n_windows)) {
        for (int w = 0; w < n_windows; ++w) {
            std::mt19937 random(seed + static_cast<uint32_t>(w));
            std::normal_distribution<float> normal(0, 1.5f);
            tables_[static_cast<size_t>(w)].resize((kVocab + 1) * (kVocab + 1) * kVocab);
            for (float& value : tables_[static_cast<size_t>(w)]) value = normal(random);
        }
        histories_.assign(tables_.size(), {{}});
    }

    const float* table(int window, const std::vector<int32_t>& history) const {
        const size_t n = history.size();
        const int last = n > 0 ? history[n - 1] : kVocab, before = n > 1 ? history[n - 2] : kVocab;
        return &tables_[static_cast<size_t>(window)]
                       [(static_cast<size_t>(last) * (kVocab + 1) + static_cast<size_t>(before)) * kVocab];
    }

    int64_t n_vocab() const override { return kVocab; }
    int room(int) const override { return room_; }
    float* prompt_logits(int window) override { return fill(window, {}); }
    void step(const std::vector<std::vector<Branch>>& branches) override {
        ++n_steps;
        for (size_t w = 0; w < branches.size(); ++w) {
            if (branches[w].empty()) continue;
            std::vector<std::vector<int32_t>> next;
            for (const Branch& branch : branches[w]) {
                const size_t parent = histories_[w].size() == 1 ? 0 : static_cast<size_t>(branch.parent);
                next.push_back(histories_[w][parent]);
                next.back().push_back(branch.token);
            }
            histories_[w] = std::move(next);
        }
    }
    float* step_logits(int window, int row) override {
        return fill(window, histories_[static_cast<size_t>(window)][static_cast<size_t>(row)]);
    }
    int n_steps = 0;

   private:
    float* fill(int window, const std::vector<int32_t>& history) {
        std::copy_n(table(window, history), kVocab, scratch_);
        return scratch_;
    }

    int room_;
    std::vector<std::vector<float>> tables_;
    std::vector<std::vector<std::vector<int32_t>>> histories_;
    float scratch_[kVocab];
};

const LogitFilter kNoFilter = [](const std::vector<int32_t>&, float*) {};

double log_prob(const float* logits, int32_t token) {
    double sum = 0;
    for (int i = 0; i < kVocab; ++i) sum += std::exp(static_cast<double>(logits[i]));
    return logits[token] - std::log(sum);
}

/// The best mean log-probability among all sequences that end within max_tokens.
void best_of_all(const ToyModel& model, std::vector<int32_t>& history, double sum, int left, double& best,
                 std::vector<int32_t>& best_tokens) {
    const float* logits = model.table(0, history);
    if (!history.empty()) {
        const double ended = (sum + log_prob(logits, kEnd)) / static_cast<double>(history.size());
        if (ended > best) best = ended, best_tokens = history;
    }
    if (left <= 1) return;
    for (int32_t token = 0; token < kEnd; ++token) {
        const double next = sum + log_prob(logits, token);
        history.push_back(token);
        best_of_all(model, history, next, left - 1, best, best_tokens);
        history.pop_back();
    }
}

}  // namespace

TEST_CASE("search: greedy takes the likeliest token and counts the end") {
    ToyModel model(1, 7);
    DecodeOptions options;
    options.max_tokens = 12;
    const Decoded decoded = search(model, 1, {kEnd}, kNoFilter, options)[0];
    std::vector<int32_t> history;
    double sum = 0;
    for (size_t i = 0; i < decoded.logprobs.size(); ++i) {
        const float* logits = model.table(0, history);
        const auto token = static_cast<int32_t>(std::max_element(logits, logits + kVocab) - logits);
        sum += log_prob(logits, token);
        if (i < decoded.tokens.size()) {
            CHECK(decoded.tokens[i] == token);
        } else {
            CHECK(token == kEnd);
        }
        history.push_back(token);
    }
    CHECK_NEAR(decoded.sum_logprob, sum, 1e-5);
    CHECK_NEAR(decoded.avg_logprob, sum / static_cast<double>(decoded.tokens.size() + 1), 1e-5);
}

TEST_CASE("search: a wide beam finds the best of all sequences") {
    const LogitFilter not_at_once = [](const std::vector<int32_t>& tokens, float* logits) {
        if (tokens.empty()) logits[kEnd] = -INFINITY;
    };
    for (uint32_t seed = 0; seed < 20; ++seed) {
        ToyModel model(1, seed);
        DecodeOptions options;
        options.beam_size = 32;
        options.patience = 8;
        options.max_tokens = 5;
        const Decoded decoded = search(model, 1, {kEnd}, kNoFilter, options)[0];
        std::vector<int32_t> history, expected;
        double best = -1e9;
        best_of_all(model, history, 0, options.max_tokens, best, expected);
        // The pool also holds unended sequences; compare the ended ones by their score.
        if (decoded.logprobs.size() == decoded.tokens.size() + 1 && !decoded.tokens.empty()) {
            CHECK_NEAR(decoded.score, best, 1e-4);
            CHECK(decoded.tokens == expected);
        } else {
            CHECK(decoded.score >= best - 1e-4);
        }
    }
}

/// Says token 0 nine times and ends; the end is possible, but unlikely, at every step.
class SureModel : public StepModel {
   public:
    int64_t n_vocab() const override { return kVocab; }
    int room(int) const override { return 100; }
    float* prompt_logits(int) override { return fill(0); }
    void step(const std::vector<std::vector<Branch>>& branches) override {
        ++n_said_;
        tokens_.clear();
        for (const Branch& branch : branches[0]) tokens_.push_back(branch.token);
    }
    float* step_logits(int, int row) override {
        return fill(tokens_[static_cast<size_t>(row)] == 0 ? n_said_ : 0);
    }

   private:
    float* fill(int n_said) {
        logits_.assign(kVocab, -9.0f);
        logits_[kEnd] = -6.0f;
        logits_[n_said == 9 ? kEnd : 0] = 0;
        return logits_.data();
    }
    int n_said_ = 0;
    std::vector<int32_t> tokens_;
    std::vector<float> logits_;
};

TEST_CASE("search: without early stopping a likelier text may end later") {
    DecodeOptions options;
    options.beam_size = 3;
    SureModel model;
    CHECK(search(model, 1, {kEnd}, kNoFilter, options)[0].tokens.size() < 9);
    options.early_stopping = false;
    SureModel again;
    const Decoded decoded = search(again, 1, {kEnd}, kNoFilter, options)[0];
    CHECK(decoded.tokens == std::vector<int32_t>(9, 0));
    CHECK(decoded.finish == Finish::Stop);
    for (uint32_t seed = 0; seed < 20; ++seed) {
        ToyModel first(1, seed), second(1, seed);
        options.early_stopping = true;
        const double early = search(first, 1, {kEnd}, kNoFilter, options)[0].score;
        options.early_stopping = false;
        CHECK(search(second, 1, {kEnd}, kNoFilter, options)[0].score >= early - 1e-6);
    }
}

TEST_CASE("search: windows of a batch do not see each other") {
    for (const int beam : {1, 3}) {
        DecodeOptions options;
        options.beam_size = beam;
        options.max_tokens = 9;
        ToyModel together(4, 3);
        const std::vector<Decoded> batch = search(together, 4, {kEnd}, kNoFilter, options);
        for (int w = 0; w < 4; ++w) {
            ToyModel alone(1, 3 + static_cast<uint32_t>(w));
            const Decoded single = search(alone, 1, {kEnd}, kNoFilter, options)[0];
            CHECK(single.tokens == batch[static_cast<size_t>(w)].tokens);
            CHECK_NEAR(single.sum_logprob, batch[static_cast<size_t>(w)].sum_logprob, 1e-9);
        }
    }
}

TEST_CASE("search: the same seed draws the same samples, another seed others") {
    const auto draw = [](uint64_t seed) {
        ToyModel model(1, 1);
        DecodeOptions options;
        options.temperature = 1;
        options.seed = seed;
        options.max_tokens = 20;
        return search(model, 1, {kEnd}, kNoFilter, options)[0].tokens;
    };
    CHECK(draw(5) == draw(5));
    int different = 0;
    for (uint64_t seed = 0; seed < 10; ++seed) different += draw(seed) != draw(seed + 100);
    CHECK(different >= 5);
}

TEST_CASE("search: samples follow the probabilities") {
    int counts[kVocab] = {};
    const int n = 4000;
    for (uint64_t seed = 0; seed < n; ++seed) {
        ToyModel model(1, 11);
        DecodeOptions options;
        options.temperature = 1;
        options.seed = seed;
        options.max_tokens = 1;
        const Decoded decoded = search(model, 1, {kEnd}, kNoFilter, options)[0];
        ++counts[decoded.tokens.empty() ? kEnd : decoded.tokens[0]];
    }
    const ToyModel model(1, 11);
    for (int32_t token = 0; token < kVocab; ++token) {
        const double p = std::exp(log_prob(model.table(0, {}), token));
        CHECK_NEAR(counts[token] / static_cast<double>(n), p, 4 * std::sqrt(p * (1 - p) / n) + 1e-3);
    }
}

TEST_CASE("search: neither max_tokens nor the room is exceeded") {
    for (const int beam : {1, 4}) {
        const LogitFilter never_end = [](const std::vector<int32_t>&, float* logits) {
            logits[kEnd] = -INFINITY;
        };
        DecodeOptions options;
        options.beam_size = beam;
        options.max_tokens = 6;
        ToyModel model(1, 2);
        CHECK(search(model, 1, {kEnd}, never_end, options)[0].tokens.size() == 6);
        CHECK(model.n_steps == 5);
        ToyModel cramped(1, 2, 3);
        CHECK(search(cramped, 1, {kEnd}, never_end, options)[0].tokens.size() == 3);
    }
}

TEST_CASE("search: logits that are not numbers are an error") {
    const LogitFilter broken = [](const std::vector<int32_t>&, float* logits) {
        std::fill_n(logits, kVocab, NAN);
    };
    DecodeOptions options;
    ToyModel model(1, 2);
    CHECK_THROWS(search(model, 1, {kEnd}, broken, options), TranscriptionError, "not numbers");
    options.beam_size = 3;
    CHECK_THROWS(search(model, 1, {kEnd}, broken, options), TranscriptionError, "not numbers");
}

TEST_CASE("search: options outside their range name the option") {
    DecodeOptions options;
    options.temperature = -1;
    CHECK_THROWS(options.check(), OptionError, "temperature");
    options = {};
    options.beam_size = 99;
    CHECK_THROWS(options.check(), OptionError, "beam_size");
    options = {};
    options.patience = 0;
    CHECK_THROWS(options.check(), OptionError, "patience");
}

TEST_CASE("search: any stop token ends a text, and its log-probability counts") {
    DecodeOptions options;
    options.max_tokens = 40;
    bool stopped = false;
    for (uint32_t seed = 0; seed < 20; ++seed) {
        ToyModel model(1, seed), same(1, seed);
        const Decoded one = search(model, 1, {kEnd}, kNoFilter, options)[0];
        const Decoded two = search(same, 1, {kEnd, 0}, kNoFilter, options)[0];
        const auto zero = std::find(one.tokens.begin(), one.tokens.end(), 0);
        CHECK(two.tokens == std::vector<int32_t>(one.tokens.begin(), zero));
        stopped |= zero != one.tokens.end();
        if (two.finish == Finish::Stop) CHECK(two.logprobs.size() == two.tokens.size() + 1);
        CHECK((one.finish == Finish::Stop) == (one.logprobs.size() == one.tokens.size() + 1));
    }
    CHECK(stopped);
}

TEST_CASE("search: a loop is a pattern at the end, long and often enough") {
    const std::vector<int32_t> text = {9, 8, 7, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1};
    CHECK(ends_in_loop(text, 10, 3));
    CHECK(ends_in_loop(text, 9, 3));
    CHECK(!ends_in_loop(text, 11, 3));  // the pattern covers ten tokens
    CHECK(!ends_in_loop(text, 9, 4));   // and is whole three times
    CHECK(ends_in_loop({5, 5, 5, 5}, 4, 4));
    CHECK(!ends_in_loop({5, 5, 5, 5}, 5, 2));
    CHECK(!ends_in_loop({1, 5, 5, 5, 6}, 3, 3));
    CHECK(!ends_in_loop({}, 1, 2));
}

TEST_CASE("search: a text that repeats itself is stopped where the option asks for it") {
    DecodeOptions options;
    options.max_tokens = 200;
    const LogitFilter never_end = [](const std::vector<int32_t>&, float* logits) {
        logits[kEnd] = -INFINITY;
    };
    ToyModel model(1, 3, 1000), same(1, 3, 1000);
    // A greedy text whose next token depends on two only must run into a cycle.
    const Decoded endless = search(model, 1, {kEnd}, never_end, options)[0];
    CHECK(endless.tokens.size() == 200);
    CHECK(endless.finish == Finish::Length);
    options.loop_tokens = 30;
    const Decoded stopped = search(same, 1, {kEnd}, never_end, options)[0];
    CHECK(stopped.finish == Finish::Loop);
    CHECK(stopped.tokens.size() >= 30);
    CHECK(stopped.tokens.size() < 60);
    CHECK(std::equal(stopped.tokens.begin(), stopped.tokens.end(), endless.tokens.begin()));
    options.beam_size = 3;
    ToyModel beams(1, 3, 1000);
    CHECK(search(beams, 1, {kEnd}, never_end, options)[0].tokens.size() < 200);
}

TEST_CASE("search: the caller hears of every token and may end a window") {
    DecodeOptions options;
    options.max_tokens = 12;
    const LogitFilter never_end = [](const std::vector<int32_t>&, float* logits) {
        logits[kEnd] = -INFINITY;
    };
    ToyModel model(2, 5);
    std::vector<std::vector<int32_t>> heard(2);
    const auto results =
        search(model, 2, {kEnd}, never_end, options, [&](int window, int32_t token, float logprob) {
            CHECK(logprob < 0);
            heard[static_cast<size_t>(window)].push_back(token);
            return window == 0 || heard[1].size() < 4;
        });
    CHECK(results[0].tokens == heard[0]);
    CHECK(results[0].finish == Finish::Length);
    CHECK(results[1].tokens == heard[1]);
    CHECK(heard[1].size() == 4);
    CHECK(results[1].finish == Finish::Caller);
    options.beam_size = 2;
    CHECK_THROWS(search(model, 2, {kEnd}, never_end, options, [](int, int32_t, float) { return true; }),
                 OptionError, "on_token");
}
