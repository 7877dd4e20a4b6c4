#include <random>

#include "check.h"
#include "decode/hotwords.h"
#include "hotword_scan.h"

namespace {

using rustasr::Hotwords;
using rustasr::test::covered;
using Tokens = std::vector<int32_t>;

int matched(const Tokens& sequence, const std::vector<Tokens>& phrases) {
    const Hotwords hotwords(phrases);
    int32_t state = Hotwords::kNone;
    int total = 0;
    for (int32_t token : sequence) {
        const Hotwords::Step step = hotwords.next(state, token);
        state = step.state;
        total += step.matched;
    }
    return total + hotwords.end(state);
}

}  // namespace

TEST_CASE("hotwords: every matched token counts at once and is taken back when the phrase breaks off") {
    const Hotwords hotwords({{1, 2, 3}});
    Hotwords::Step step = hotwords.next(Hotwords::kNone, 1);
    CHECK(step.matched == 1);
    CHECK(hotwords.continuations(step.state) == Tokens{2});
    step = hotwords.next(step.state, 2);
    CHECK(step.matched == 1);
    CHECK(hotwords.end(step.state) == -2);
    CHECK(hotwords.next(step.state, 4).matched == -2);
    CHECK(hotwords.next(step.state, 1).matched == -1);  // two are lost, a new match begins
    step = hotwords.next(step.state, 3);
    CHECK(step.matched == 1);
    CHECK(step.state == Hotwords::kNone);  // whole: nothing can be lost any more
}

TEST_CASE("hotwords: a phrase inside a longer one is kept when the longer one breaks off") {
    CHECK(matched({1, 2, 5}, {{1}, {1, 2, 3}}) == 1);
    CHECK(matched({1, 2, 3}, {{1}, {1, 2, 3}}) == 3);
    CHECK(matched({1, 2, 4, 5}, {{1, 2, 3}, {2, 4}}) == 2);
    CHECK(matched({1, 1, 1, 2}, {{1, 1, 2}}) == 3);
}

TEST_CASE("hotwords: the count equals a scan for the longest phrase at each place") {
    std::mt19937 random(3);  // NOLINT(bugprone-random-generator-seed): the same at every run
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    int total = 0;
    for (int round = 0; round < 3000; ++round) {
        const int n_tokens = 2 + below(2);
        std::vector<Tokens> phrases(static_cast<size_t>(below(5)));
        for (Tokens& phrase : phrases) {
            for (int i = 1 + below(5); i > 0; --i) phrase.push_back(below(n_tokens));
        }
        Tokens sequence;
        for (int i = below(14); i > 0; --i) sequence.push_back(below(n_tokens));
        const int expected = covered(sequence, phrases);
        CHECK(matched(sequence, phrases) == expected);
        total += expected;
    }
    CHECK(total > 3000);
}
