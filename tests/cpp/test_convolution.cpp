// The convolutions of a conformer in every form that this machine can run, against double precision.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "kernel_graph.h"
#include "kernels/elementwise_form.h"
#include "kernels/padding.h"

namespace {

using namespace rustasr::kernels;
using rustasr::test::KernelGraph;
using rustasr::test::random_values;

size_t count(int64_t a, int64_t b = 1, int64_t c = 1, int64_t d = 1) {
    return static_cast<size_t>(a * b * c * d);
}

// The greatest difference, relative above 1. NaN counts as infinite.
double difference(const std::vector<float>& found, const std::vector<double>& expected) {
    if (found.size() != expected.size()) return HUGE_VAL;
    double worst = 0;
    for (size_t i = 0; i < found.size(); i++) {
        const double d = std::fabs(found[i] - expected[i]) / std::max(1.0, std::fabs(expected[i]));
        worst = std::max(worst, std::isnan(d) ? HUGE_VAL : d);
    }
    return worst;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void report(const ElementwiseForm& form, const std::string& name, double found, double allowed) {
    rustasr::test::count_check();
    if (found <= allowed) return;
    rustasr::test::fail(
        __FILE__, __LINE__,
        std::string(form.name) + ", " + name + ": difference " + std::to_string(found * 1e6) + "e-6");
}

// ---- gated, over time

struct Gated {
    int64_t channels, frames, taps, batch = 1;
    bool norm = false;
    std::vector<int32_t> lengths = {};
    float spread = 1;

    std::string name() const {
        return "C" + std::to_string(channels) + " T" + std::to_string(frames) + " K" + std::to_string(taps) +
               (norm ? " norm" : "") + (lengths.empty() ? "" : " ragged");
    }
};

struct GatedOperands {
    std::vector<float> x, kernel, bias, norm_weight, norm_bias;

    GatedOperands(const Gated& p, unsigned seed)
        : x(random_values(count(2 * p.channels, p.frames, p.batch), 0, p.spread, seed)),
          kernel(random_values(count(p.channels, p.taps), 0, 1, seed + 1)),
          bias(random_values(count(p.channels), 0, 1, seed + 2)),
          norm_weight(random_values(count(p.channels), 1, 1, seed + 3)),
          norm_bias(random_values(count(p.channels), 0, 1, seed + 4)) {}

    std::vector<double> reference(const Gated& p) const {
        std::vector<double> y;
        for (int64_t b = 0; b < p.batch; b++) {
            const int64_t length = p.lengths.empty() ? p.frames : std::min<int64_t>(p.lengths[b], p.frames);
            for (int64_t t = 0; t < p.frames; t++) {
                std::vector<double> row;
                for (int64_t c = 0; c < p.channels; c++) {
                    double sum = bias[c];
                    for (int64_t k = 0; k < p.taps; k++) {
                        const int64_t from = t + k - p.taps / 2;
                        if (from < 0 || from >= length) continue;
                        const float* frame = &x[(b * p.frames + from) * 2 * p.channels];
                        sum += kernel[k * p.channels + c] * (frame[c] * sigmoid(frame[p.channels + c]));
                    }
                    row.push_back(sum);
                }
                if (p.norm) normalize(row);
                for (double v : row) y.push_back(v * sigmoid(v));
            }
        }
        return y;
    }

   private:
    void normalize(std::vector<double>& row) const {
        double mean = 0, variance = 0;
        for (double v : row) mean += v / static_cast<double>(row.size());
        for (double v : row) variance += (v - mean) * (v - mean) / static_cast<double>(row.size());
        for (size_t c = 0; c < row.size(); c++)
            row[c] = (row[c] - mean) / std::sqrt(variance + 1e-5) * norm_weight[c] + norm_bias[c];
    }
};

void check(const Gated& p, unsigned seed) {
    const GatedOperands o(p, seed);
    const std::vector<double> expected = o.reference(p);
    KernelGraph g;
    ggml_tensor* x = g.floats({2 * p.channels, p.frames, p.batch}, o.x);
    const ConvolutionWeights weights = {g.floats({p.channels, 1, p.taps}, o.kernel),
                                        g.floats({p.channels}, o.bias)};
    ConvolutionNorm norm;
    if (p.norm) norm = {g.floats({p.channels}, o.norm_weight), g.floats({p.channels}, o.norm_bias), 1e-5f};
    ggml_tensor* lengths = p.lengths.empty() ? nullptr : g.integers(p.lengths);
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        const auto build = [&](ggml_context* c) {
            return gated_convolution_with(*form, c, x, weights, norm, lengths);
        };
        const std::vector<float> one = g.run(1, build);
        // Great values cancel, and the norm divides.
        report(*form, p.name(), difference(one, expected), p.spread > 1 ? 1e-4 : p.norm ? 3e-5 : 1e-5);
        if (form == elementwise_usable_forms().back()) CHECK(g.run(3, build) == one);
    }
}

// ---- over mels and time

struct Strided {
    int64_t mels, frames, channels, taps = 3, batch = 1;
    std::vector<int32_t> lengths = {};
    Activation activation = Activation::Relu;

    std::string name() const {
        return "F" + std::to_string(mels) + " T" + std::to_string(frames) + " C" + std::to_string(channels) +
               " K" + std::to_string(taps) + (lengths.empty() ? "" : " ragged");
    }
};

double activate(double x, Activation activation) {
    if (activation == Activation::Relu) return std::max(x, 0.0);
    return activation == Activation::Gelu ? 0.5 * x * std::erfc(-x / std::sqrt(2.0)) : x;
}

// y [C, F', T', B] from the value of channel c, place f, frame t of sequence b (zero outside).
template <class Value>
std::vector<double> strided_reference(const Strided& p, const std::vector<float>& kernel,
                                      const std::vector<float>& bias, Activation activation,
                                      const Value& value) {
    std::vector<double> y;
    for (int64_t b = 0; b < p.batch; b++) {
        for (int64_t t = 0; t < halved(p.frames); t++) {
            for (int64_t f = 0; f < halved(p.mels); f++) {
                for (int64_t c = 0; c < p.channels; c++) {
                    double sum = bias[c];
                    for (int64_t kt = 0; kt < p.taps; kt++) {
                        for (int64_t kf = 0; kf < p.taps; kf++) {
                            const int64_t from_t = 2 * t - p.taps / 2 + kt, from_f = 2 * f - p.taps / 2 + kf;
                            if (from_t < 0 || from_t >= p.frames || from_f < 0 || from_f >= p.mels) continue;
                            sum += kernel[(kt * p.taps + kf) * p.channels + c] * value(c, from_f, from_t, b);
                        }
                    }
                    y.push_back(activate(sum, activation));
                }
            }
        }
    }
    return y;
}

struct StridedKernel {
    std::vector<float> kernel, bias;
    StridedKernel(const Strided& p, unsigned seed)
        : kernel(random_values(count(p.channels, p.taps, p.taps), 0, 1, seed)),
          bias(random_values(count(p.channels), 0, 1, seed + 1)) {}
    ConvolutionWeights tensors(KernelGraph& g, const Strided& p) const {
        return {g.floats({p.channels, p.taps, p.taps}, kernel), g.floats({p.channels}, bias)};
    }
};

template <class Build>
void check_forms(const KernelGraph& g, const std::string& name, const std::vector<double>& expected,
                 const Build& build) {
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        const auto build_one = [&](ggml_context* c) { return build(*form, c); };
        const std::vector<float> one = g.run(1, build_one);
        report(*form, name, difference(one, expected), 2e-5);
        if (form == elementwise_usable_forms().back()) CHECK(g.run(3, build_one) == one);
    }
}

// The input convolution, the depthwise one behind it (`p` describes the mel, lengths the frames between
// them), and both in one.
void check(const Strided& p, unsigned seed) {
    const std::vector<float> mel = random_values(count(p.mels, p.frames, p.batch), 0, 1, seed);
    const StridedKernel first(p, seed + 1), second(p, seed + 3);
    const std::vector<double> between = strided_reference(
        p, first.kernel, first.bias, p.activation,
        [&](int64_t, int64_t f, int64_t t, int64_t b) { return mel[(b * p.frames + t) * p.mels + f]; });
    Strided q = p;
    q.mels = halved(p.mels);
    q.frames = halved(p.frames);
    const auto between_at = [&](int64_t c, int64_t f, int64_t t, int64_t b) {
        if (!p.lengths.empty() && t >= p.lengths[b]) return 0.0;
        return between[((b * q.frames + t) * q.mels + f) * p.channels + c];
    };
    const std::vector<double> expected =
        strided_reference(q, second.kernel, second.bias, Activation::None, between_at);

    KernelGraph g;
    ggml_tensor* x = g.floats({p.mels, p.frames, p.batch}, mel);
    ggml_tensor* image =
        g.floats({p.channels, q.mels, q.frames, p.batch}, std::vector<float>(between.begin(), between.end()));
    const ConvolutionWeights w1 = first.tensors(g, p), w2 = second.tensors(g, p);
    ggml_tensor* lengths = p.lengths.empty() ? nullptr : g.integers(p.lengths);
    check_forms(g, "input " + p.name(), between, [&](const ElementwiseForm& form, ggml_context* c) {
        return strided_convolution_with(form, c, x, w1, p.activation, {}, nullptr);
    });
    check_forms(g, "depthwise " + p.name(), expected, [&](const ElementwiseForm& form, ggml_context* c) {
        return strided_convolution_with(form, c, image, {}, Activation::None, w2, lengths);
    });
    check_forms(g, "both " + p.name(), expected, [&](const ElementwiseForm& form, ggml_context* c) {
        return strided_convolution_with(form, c, x, w1, p.activation, w2, lengths);
    });
}

}  // namespace

TEST_CASE("gated convolution: 1e-5 of double precision at every count of channels, frames and taps") {
    unsigned seed = 1;
    for (int64_t channels : {1, 7, 16, 64, 70, 200}) {
        for (int64_t frames : {1, 4, 8, 63, 65, 150}) {
            for (int64_t taps : {1, 5, 9}) {
                check(Gated{channels, frames, taps}, seed++);
                if (channels > 1) check(Gated{channels, frames, taps, 1, true}, seed++);
            }
        }
    }
    check(Gated{40, 90, 31}, seed++);
    check(Gated{8, 20, 255}, seed++);
}

TEST_CASE("gated convolution: frames behind a sequence's end count as zeros") {
    Gated p{20, 100, 9, 4, true};
    p.lengths = {100, 3, 0, 77};
    check(p, 500);
    p.norm = false;
    check(p, 501);
    const GatedOperands o(p, 502);  // what lies there is not looked at
    std::vector<float> spoilt = o.x;
    std::fill(spoilt.begin() + 40 * 103, spoilt.begin() + 40 * 200, NAN);
    KernelGraph g;
    const ConvolutionWeights weights = {g.floats({20, 1, 9}, o.kernel), g.floats({20}, o.bias)};
    ggml_tensor *x = g.floats({40, 100, 4}, spoilt), *lengths = g.integers(p.lengths);
    for (const ElementwiseForm* form : elementwise_usable_forms()) {
        const std::vector<float> y = g.run(
            1, [&](ggml_context* c) { return gated_convolution_with(*form, c, x, weights, {}, lengths); });
        report(*form, "spoilt " + p.name(), difference(y, o.reference(p)), 1e-5);
    }
}

TEST_CASE("gated convolution: great values open and close the gate") {
    for (float spread : {30.0f, 1000.0f}) check(Gated{70, 30, 5, 1, false, {}, spread}, 600);
}

TEST_CASE("strided convolutions: 2e-5 of double precision at every count of mels, frames and channels") {
    unsigned seed = 1000;
    for (int64_t mels : {1, 2, 3, 8, 13, 33}) {
        for (int64_t frames : {1, 2, 7, 20}) {
            for (int64_t channels : {1, 16, 21}) check(Strided{mels, frames, channels}, seed++);
        }
    }
    for (int64_t taps : {1, 5, 7}) check(Strided{20, 17, 24, taps}, seed++);
    check(Strided{20, 17, 24, 3, 2, {}, Activation::Gelu}, seed++);
}

TEST_CASE("strided convolutions: ragged batches") {
    Strided p{16, 30, 20, 3, 4};
    p.lengths = {15, 1, 0, 8};
    check(p, 2000);
}

TEST_CASE("pad_frames: zeros around the frames of each sequence, whatever the threads") {
    for (const auto& [n, T, B] : {std::array<int64_t, 3>{5, 4, 3}, {1, 1, 1}, {7, 30, 1}, {3, 2, 9}}) {
        KernelGraph g;
        const std::vector<float> values = random_values(count(n, T, B), 0, 1, 1);
        ggml_tensor* x = g.floats({n, T, B}, values);
        for (const auto& [before, after] : {std::pair<int, int>{1, 0}, {0, 2}, {3, 1}, {0, 0}}) {
            std::vector<float> expected;
            for (int64_t b = 0; b < B; b++) {
                expected.resize(expected.size() + count(n, before), 0.0f);
                const auto sequence = values.begin() + b * n * T;
                expected.insert(expected.end(), sequence, sequence + n * T);
                expected.resize(expected.size() + count(n, after), 0.0f);
            }
            for (int threads : {1, 2, 3, 8}) {
                const auto found = g.run(threads, [&, before = before, after = after](ggml_context* c) {
                    return pad_frames(c, x, before, after);
                });
                CHECK(found == expected);
            }
        }
    }
}

TEST_CASE("convolutions: wrong operands are refused with their shape") {
    KernelGraph g;
    const auto zeros = [&](std::initializer_list<int64_t> shape) {
        int64_t n = 1;
        for (int64_t s : shape) n *= s;
        return g.floats(shape, std::vector<float>(static_cast<size_t>(n)));
    };
    ggml_tensor *x = zeros({40, 10, 2}), *bias = zeros({20}), *odd = zeros({41, 10, 2});
    const ConvolutionWeights good = {zeros({20, 1, 5}), bias};
    const auto refused = [&](ggml_tensor* input, const ConvolutionWeights& w, const ConvolutionNorm& norm,
                             ggml_tensor* lengths, const char* part) {
        ggml_context* c = ggml_init({1 << 16, nullptr, true});
        CHECK_THROWS(gated_convolution_with(elementwise_form_portable(), c, input, w, norm, lengths),
                     rustasr::OptionError, part);
        ggml_free(c);
    };
    refused(odd, good, {}, nullptr, "[41, 10");
    refused(x, {zeros({20, 1, 4}), bias}, {}, nullptr, "odd time taps");
    refused(x, {zeros({20, 3, 5}), bias}, {}, nullptr, "[20, 3, 5");
    refused(x, {good.kernel, zeros({19})}, {}, nullptr, "a bias of 20");
    refused(x, good, {bias, zeros({3}), 1e-5f}, nullptr, "norm");
    refused(x, good, {}, g.integers({1}), "lengths of 2");
    ggml_context* c = ggml_init({1 << 16, nullptr, true});
    const ElementwiseForm& form = elementwise_form_portable();
    CHECK_THROWS(
        strided_convolution_with(form, c, x, {zeros({20, 3, 5}), bias}, Activation::Relu, {}, nullptr),
        rustasr::OptionError, "[20, 3, 5");
    CHECK_THROWS(
        strided_convolution_with(form, c, x, {zeros({20, 33, 33}), bias}, Activation::Relu, {}, nullptr),
        rustasr::OptionError, "33");
    CHECK_THROWS(strided_convolution_with(form, c, x, {zeros({20, 3, 3}), bias}, Activation::Relu,
                                          {zeros({20, 5, 5}), bias}, nullptr),
                 rustasr::OptionError, "one shape");
    ggml_free(c);
}
