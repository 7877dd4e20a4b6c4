// The greedy search of RNN-T and TDT against the loops of the specifications, written out in double
// arithmetic, on random networks whose biases make the rare cases common.

#include <functional>

#include "check.h"
#include "core/error.h"
#include "decode/transducer.h"
#include "toy_transducer.h"

namespace {

using namespace rustasr;
using namespace rustasr::test;

/// How often the cases came up that trained models hardly ever reach.
struct Rare {
    int full_frames = 0, idle_blanks = 0, long_blanks = 0, past_the_end = 0, same_frame = 0;
};

int32_t argmax(const double* x, int n) {
    int best = 0;
    for (int i = 1; i < n; ++i) {
        if (x[i] > x[best]) best = i;  // the first among equals
    }
    return best;
}

/// gigaam/decoding.py: frame by frame, at most max_symbols on each.
Recognized plain_rnnt(const ToyTransducer& toy, int utterance, int max_symbols, Rare& rare) {
    Recognized result;
    PlainTransducer::State state = toy.plain.start();
    const int blank = toy.file.sizes.n_vocab;
    Doubles prediction = toy.plain.predict(blank, state);
    for (int t = 0; t < toy.frames.lengths[static_cast<size_t>(utterance)]; ++t) {
        int n = 0;
        while (n < max_symbols) {
            const Doubles logits = toy.plain.joint(toy.frame(utterance, t), prediction);
            const int32_t k = argmax(logits.data(), blank + 1);
            const double logprob =
                logits[static_cast<size_t>(k)] - log_sum_exp(logits.data(), static_cast<size_t>(blank) + 1);
            result.score += logprob;
            if (k == blank) break;
            result.tokens.push_back(k);
            result.frames.push_back(t);
            result.durations.push_back(1);
            result.logprobs.push_back(static_cast<float>(logprob));
            prediction = toy.plain.predict(k, state);
            ++n;
        }
        rare.full_frames += n == max_symbols;
        rare.same_frame += n > 1;
    }
    return result;
}

/// NeMo's label looping for TDT, one utterance.
Recognized plain_tdt(const ToyTransducer& toy, int utterance, int max_symbols, Rare& rare) {
    Recognized result;
    PlainTransducer::State state = toy.plain.start();
    const int blank = toy.file.sizes.n_vocab, n_frames = toy.frames.lengths[static_cast<size_t>(utterance)];
    const std::vector<int32_t>& durations = toy.file.sizes.durations;
    Doubles g = toy.plain.predict(blank, state);
    int t = 0, last_t = -1, count = 0;
    while (t < n_frames) {
        const Doubles logits = toy.plain.joint(toy.frame(utterance, t), g);
        const int32_t k = argmax(logits.data(), blank + 1);
        const double* tail = &logits[static_cast<size_t>(blank) + 1];
        const int32_t index = argmax(tail, static_cast<int>(durations.size()));
        const int d = durations[static_cast<size_t>(index)];
        const double logprob =
            logits[static_cast<size_t>(k)] - log_sum_exp(logits.data(), static_cast<size_t>(blank) + 1);
        result.score += logprob + tail[index] - log_sum_exp(tail, durations.size());
        if (k == blank) {
            rare.idle_blanks += d == 0;
            rare.long_blanks += d > 1;
            t += std::max(d, 1);
            continue;
        }
        result.tokens.push_back(k);
        result.frames.push_back(t);
        result.durations.push_back(d);
        result.logprobs.push_back(static_cast<float>(logprob));
        rare.same_frame += last_t == t;
        count = last_t == t ? count + 1 : 1;
        last_t = t;
        t += d;
        rare.past_the_end += t > n_frames;
        g = toy.plain.predict(k, state);
        if (t < n_frames && last_t == t && count >= max_symbols) {
            ++t;
            ++rare.full_frames;
        }
    }
    return result;
}

void check_same(const Recognized& found, const Recognized& expected) {
    CHECK(found.tokens == expected.tokens);
    CHECK(found.frames == expected.frames);
    CHECK(found.durations == expected.durations);
    REQUIRE(found.logprobs.size() == expected.logprobs.size());
    for (size_t i = 0; i < found.logprobs.size(); ++i)
        CHECK_NEAR(found.logprobs[i], expected.logprobs[i], 1e-4);
    CHECK_NEAR(found.score, expected.score, 1e-3);
}

std::vector<int> all_of(const EncodedFrames& frames) {
    std::vector<int> utterances;
    for (size_t i = 0; i < frames.lengths.size(); ++i) utterances.push_back(static_cast<int>(i));
    return utterances;
}

ToySizes rnnt(float blank_bias) {
    ToySizes sizes;
    sizes.blank_bias = blank_bias;
    return sizes;
}

ToySizes tdt(float blank_bias, std::vector<float> duration_bias) {
    ToySizes sizes;
    sizes.durations = {0, 1, 2, 3, 4};
    sizes.blank_bias = blank_bias;
    sizes.duration_bias = std::move(duration_bias);
    return sizes;
}

}  // namespace

TEST_CASE("transducer: RNN-T follows the loop of the specification") {
    Rare rare;
    for (float blank_bias : {-4.0f, 0.0f, 3.0f, 6.0f}) {
        for (uint32_t seed = 0; seed < 8; ++seed) {
            ToyTransducer toy(rnnt(blank_bias), seed);
            toy.make_frames({23}, seed);
            const Recognized found = Transducer(toy.backend, toy.head).recognize(toy.frames, {0}, {}).front();
            check_same(found, plain_rnnt(toy, 0, 10, rare));
        }
    }
    CHECK(rare.full_frames > 10);
    CHECK(rare.same_frame > 10);
}

TEST_CASE("transducer: TDT follows the loop of the specification") {
    Rare rare;
    for (const auto& [blank_bias, duration_bias] : std::vector<std::pair<float, std::vector<float>>>{
             {0, {}}, {-5, {4, 0, 0, 0, 0}}, {2, {2, 0, 0, 0, 0}}, {3, {}}, {-2, {-3, 0, 0, 1, 2}}}) {
        for (uint32_t seed = 0; seed < 8; ++seed) {
            ToyTransducer toy(tdt(blank_bias, duration_bias), seed);
            toy.make_frames({29}, seed);
            const Recognized found = Transducer(toy.backend, toy.head).recognize(toy.frames, {0}, {}).front();
            check_same(found, plain_tdt(toy, 0, 10, rare));
        }
    }
    CHECK(rare.full_frames > 5);
    CHECK(rare.idle_blanks > 5);
    CHECK(rare.long_blanks > 5);
    CHECK(rare.past_the_end > 3);
    CHECK(rare.same_frame > 20);
}

TEST_CASE("transducer: the caller's max_symbols replaces the model's") {
    Rare rare;
    SearchOptions options;
    options.max_symbols = 3;
    ToyTransducer sticky(rnnt(-4), 2);
    sticky.make_frames({12}, 2);
    check_same(Transducer(sticky.backend, sticky.head).recognize(sticky.frames, {0}, options).front(),
               plain_rnnt(sticky, 0, 3, rare));
    ToyTransducer idle(tdt(-5, {4, 0, 0, 0, 0}), 2);
    idle.make_frames({12}, 2);
    check_same(Transducer(idle.backend, idle.head).recognize(idle.frames, {0}, options).front(),
               plain_tdt(idle, 0, 3, rare));
    CHECK(rare.full_frames > 10);
}

TEST_CASE("transducer: utterances together give what each gives alone") {
    for (const ToySizes& sizes : {rnnt(3), tdt(1, {1, 0, 0, 0, 0})}) {
        ToyTransducer toy(sizes, 4);
        toy.make_frames({17, 0, 1, 40, 23, 8, 30, 5, 12, 31}, 6);
        Transducer transducer(toy.backend, toy.head);
        const std::vector<int> order = {9, 3, 0, 1, 2, 4, 8, 7, 6, 5, 3};
        const std::vector<Recognized> together = transducer.recognize(toy.frames, order, {});
        REQUIRE(together.size() == order.size());
        size_t n_tokens = 0;
        for (size_t i = 0; i < order.size(); ++i) {
            const Recognized alone = transducer.recognize(toy.frames, {order[i]}, {}).front();
            CHECK(together[i].tokens == alone.tokens);
            CHECK(together[i].frames == alone.frames);
            CHECK(together[i].durations == alone.durations);
            CHECK(together[i].logprobs == alone.logprobs);
            CHECK(together[i].score == alone.score);
            n_tokens += alone.tokens.size();
        }
        CHECK(n_tokens > 40);
        CHECK(together[3].tokens.empty());
    }
}

TEST_CASE("transducer: threads do not change the result") {
    ToySizes sizes = tdt(1, {});
    sizes.type = GGML_TYPE_F16;
    ToyTransducer one(sizes, 4, 1), three(sizes, 4, 3);
    const Recognized a =
        Transducer(one.backend, one.head).recognize(one.make_frames({60}, 1), {0}, {}).front();
    const Recognized b =
        Transducer(three.backend, three.head).recognize(three.make_frames({60}, 1), {0}, {}).front();
    CHECK(a.tokens == b.tokens);
    CHECK(a.logprobs == b.logprobs);
    CHECK(a.score == b.score);
}

TEST_CASE("transducer: suppressed ids are never emitted, the others keep their probabilities") {
    for (const ToySizes& sizes : {rnnt(1), tdt(0, {})}) {
        ToyTransducer toy(sizes, 8);
        toy.make_frames({50}, 3);
        Transducer transducer(toy.backend, toy.head);
        const Recognized free = transducer.recognize(toy.frames, {0}, {}).front();
        SearchOptions options;
        options.suppress = {free.tokens.front(), free.tokens.back()};
        const Recognized found = transducer.recognize(toy.frames, {0}, options).front();
        CHECK(!found.tokens.empty());
        for (int32_t token : found.tokens) {
            CHECK(token != options.suppress[0]);
            CHECK(token != options.suppress[1]);
        }
        options.suppress = {0, 1, 2, 3, 4, 5};
        CHECK(transducer.recognize(toy.frames, {0}, options).front().tokens.empty());
    }
    // With one token ruled out, the next best takes its place with the probability that it had beside it.
    ToyTransducer toy(rnnt(-6), 8);
    toy.make_frames({1}, 3);
    PlainTransducer::State state = toy.plain.start();
    const Doubles logits = toy.plain.joint(toy.frame(0, 0), toy.plain.predict(6, state));
    SearchOptions options;
    options.max_symbols = 1;
    options.suppress = {argmax(logits.data(), 6)};
    Doubles others = logits;
    others[static_cast<size_t>(options.suppress[0])] = -1e9;
    const int32_t second = argmax(others.data(), 7);
    const Recognized found = Transducer(toy.backend, toy.head).recognize(toy.frames, {0}, options).front();
    REQUIRE(found.tokens == std::vector<int32_t>{second});
    CHECK_NEAR(found.logprobs[0], logits[static_cast<size_t>(second)] - log_sum_exp(logits.data(), 7), 1e-4);
}

TEST_CASE("transducer: the first of equal logits wins") {
    ToySizes sizes = tdt(0, {});
    sizes.spread = 0;  // all logits and durations are equal: token 0 with duration 0
    sizes.max_symbols = 2;
    ToyTransducer toy(sizes, 1);
    toy.make_frames({3}, 1);
    const Recognized found = Transducer(toy.backend, toy.head).recognize(toy.frames, {0}, {}).front();
    CHECK(found.tokens == std::vector<int32_t>(6, 0));
    CHECK((found.frames == std::vector<int32_t>{0, 0, 1, 1, 2, 2}));
    CHECK(found.durations == std::vector<int32_t>(6, 0));
}

TEST_CASE("transducer: it can be cancelled") {
    ToyTransducer toy(rnnt(0), 1);
    toy.make_frames({5}, 1);
    Transducer transducer(toy.backend, toy.head);
    toy.backend.cancel();
    CHECK_THROWS(transducer.recognize(toy.frames, {0}, {}), Cancelled, "cancelled");
    CHECK(!transducer.recognize(toy.frames, {0}, {}).empty());
}

TEST_CASE("transducer: options outside their range are refused") {
    ToyTransducer toy(rnnt(0), 1);
    toy.make_frames({5, 5}, 1);
    Transducer transducer(toy.backend, toy.head);
    const auto with = [&](const std::function<void(SearchOptions&)>& change) {
        SearchOptions options;
        change(options);
        return transducer.recognize(toy.frames, all_of(toy.frames), options);
    };
    CHECK_THROWS(with([](auto& o) { o.beam_size = 0; }), OptionError, "beam_size");
    CHECK_THROWS(with([](auto& o) { o.max_symbols = -1; }), OptionError, "max_symbols");
    CHECK_THROWS(with([](auto& o) { o.suppress = {6}; }), OptionError,
                 "suppress: expected ids of 0 to 5, found 6");
    CHECK_THROWS(with([](auto& o) { o.suppress = {-1}; }), OptionError, "suppress");
    CHECK_THROWS(with([](auto& o) { o.hotwords = {{1}}; }), OptionError, "hotwords");
    CHECK_THROWS(with([](auto& o) { o.beam_size = 65; }), OptionError, "beam_size: expected 1..64, found 65");
    CHECK_THROWS(with([](auto& o) { o.beam_size = 2, o.hotwords = {{}}; }), OptionError, "hotwords");
    CHECK_THROWS(with([](auto& o) { o.beam_size = 2, o.hotwords = {{6}}; }), OptionError, "hotwords");
    CHECK_THROWS(with([](auto& o) { o.hotword_boost = NAN; }), OptionError, "hotword_boost");
    CHECK_THROWS(transducer.recognize(toy.frames, {2}, {}), OptionError, "utterance: expected 0..1, found 2");
    CHECK_THROWS(transducer.recognize(toy.frames, {-1}, {}), OptionError, "utterance");
}
