#include <cmath>
#include <set>

#include "check.h"
#include "decode/timestamp_rules.h"

namespace {

using namespace rustasr;

// A vocabulary of 10 text tokens, end-of-text 10, no-timestamps 11 and 100 timestamps from 12.
constexpr TimestampTokens kIds{112, 10, 11, 12};

std::vector<float> filtered(const std::vector<int32_t>& tokens, const DecodeOptions& options = {},
                            float stamps = 0) {
    std::vector<float> logits(112, 0.0f);
    logits[3] = logits[10] =
        20.0f;  // a likely word and end, so that the sum of timestamps decides only when asked to
    for (size_t i = 12; i < 112; ++i) logits[i] = stamps;
    whisper_filter(kIds, {5, 10}, options)(tokens, logits.data());
    return logits;
}

std::set<int> allowed(const std::vector<float>& logits) {
    std::set<int> ids;
    for (size_t i = 0; i < logits.size(); ++i) {
        if (!std::isinf(logits[i])) ids.insert(static_cast<int>(i));
    }
    return ids;
}

}  // namespace

TEST_CASE("timestamp rules: it begins with a timestamp of at most one second") {
    const std::set<int> ids = allowed(filtered({}));
    CHECK(*ids.begin() == 12);
    CHECK(*ids.rbegin() == 12 + 50);
}

TEST_CASE("timestamp rules: after the opening timestamp comes text or the end") {
    const std::set<int> ids = allowed(filtered({20}));
    CHECK(ids.count(0) && ids.count(10));
    CHECK(*ids.rbegin() == 10);
    CHECK(!ids.count(11));
}

TEST_CASE("timestamp rules: after a closing timestamp comes its twin, a later one or the end") {
    const std::set<int> ids = allowed(filtered({20, 3, 30}));
    CHECK(!ids.count(3));
    CHECK(ids.count(10) && ids.count(30) && ids.count(31));
    CHECK(!ids.count(29));
}

TEST_CASE("timestamp rules: a segment has a length") {
    const std::set<int> ids = allowed(filtered({20, 3}));
    CHECK(!ids.count(20));
    CHECK(ids.count(21));
}

TEST_CASE("timestamp rules: likely timestamps together beat a likelier word") {
    CHECK(allowed(filtered({20, 3}, {}, 19.0f)).count(3) == 0);  // 91 of e^19 against e^20
    CHECK(allowed(filtered({20, 3}, {}, 10.0f)).count(3) == 1);
}

TEST_CASE("timestamp rules: suppressed and blank tokens, and no rules without timestamps") {
    DecodeOptions options;
    options.timestamps = false;
    options.suppress = {7};
    std::set<int> ids = allowed(filtered({}, options));
    CHECK(!ids.count(5) && !ids.count(10) && !ids.count(7));
    CHECK(ids.count(11) && ids.count(111));
    ids = allowed(filtered({3}, options));
    CHECK(ids.count(5) && ids.count(10) && !ids.count(7));
}
