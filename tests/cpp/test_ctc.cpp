// Searching in random CTC outputs.

#include <random>

#include "check.h"
#include "core/backend.h"
#include "core/error.h"
#include "decode/ctc.h"
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

}  // namespace

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
