// The exact convolution, the contexts and the masks of CAM++ against plain loops, in every form.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "kernel_graph.h"
#include "kernels/context_mask.h"
#include "kernels/exact_convolution_form.h"

using namespace rustasr::kernels;
using rustasr::test::KernelGraph;
using rustasr::test::random_values;

namespace {

struct Case {
    int64_t n_in, n_out, mels, frames, batch;
    int64_t mel_taps, frame_taps;
    int mel_stride, frame_stride, dilation;
    bool bias, residual;
    int64_t mels_out() const { return (mels - 1) / mel_stride + 1; }
    int64_t frames_out() const { return (frames - 1) / frame_stride + 1; }
    size_t n_x() const { return static_cast<size_t>(n_in * mels * frames * batch); }
    size_t n_y() const { return static_cast<size_t>(n_out * mels_out() * frames_out() * batch); }
};

const Case kCases[] = {
    {1, 32, 80, 7, 2, 3, 3, 1, 1, 1, true, false},    {32, 32, 40, 5, 1, 3, 3, 1, 1, 1, true, true},
    {32, 32, 41, 6, 2, 3, 3, 2, 1, 1, true, false},   {32, 48, 10, 3, 3, 1, 1, 2, 1, 1, true, true},
    {16, 32, 9, 9, 1, 3, 3, 2, 2, 1, false, false},   {320, 128, 1, 75, 2, 1, 5, 1, 2, 1, true, false},
    {128, 32, 1, 74, 3, 1, 3, 1, 1, 2, false, false}, {128, 32, 1, 3, 1, 1, 3, 1, 1, 2, false, false},
    {16, 16, 1, 1, 1, 3, 3, 1, 1, 1, true, false},    {2000, 16, 1, 31, 1, 1, 5, 1, 1, 1, true, false},
    {8, 64, 23, 2, 2, 5, 1, 1, 1, 1, true, true},
};

std::vector<float> expected(const Case& s, const std::vector<float>& x, const std::vector<float>& kernel,
                            const std::vector<float>& bias, const std::vector<float>& residual, bool relu) {
    std::vector<float> y;
    for (int64_t b = 0; b < s.batch; ++b)
        for (int64_t t = 0; t < s.frames_out(); ++t)
            for (int64_t f = 0; f < s.mels_out(); ++f)
                for (int64_t n = 0; n < s.n_out; ++n) {
                    double sum = s.bias ? bias[static_cast<size_t>(n)] : 0;
                    if (s.residual) sum += residual[y.size()];
                    for (int64_t kt = 0; kt < s.frame_taps; ++kt)
                        for (int64_t kf = 0; kf < s.mel_taps; ++kf)
                            for (int64_t c = 0; c < s.n_in; ++c) {
                                const int64_t frame =
                                    t * s.frame_stride + (kt - s.frame_taps / 2) * s.dilation;
                                const int64_t mel = f * s.mel_stride + kf - s.mel_taps / 2;
                                if (frame < 0 || frame >= s.frames || mel < 0 || mel >= s.mels) continue;
                                const int64_t at = ((b * s.frames + frame) * s.mels + mel) * s.n_in + c;
                                const int64_t k = ((kt * s.mel_taps + kf) * s.n_in + c) * s.n_out + n;
                                sum += double(x[static_cast<size_t>(at)]) * kernel[static_cast<size_t>(k)];
                            }
                    y.push_back(static_cast<float>(relu ? std::max(sum, 0.0) : sum));
                }
    return y;
}

void check_close(const std::vector<float>& found, const std::vector<float>& wanted, double tolerance) {
    CHECK(found.size() == wanted.size());
    double off = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
        const double difference = std::abs(double(found[i]) - wanted[i]);
        off = std::isnan(difference) ? HUGE_VAL : std::max(off, difference);
    }
    CHECK(off <= tolerance);
}

}  // namespace

TEST_CASE("exact convolution: every shape and form is the sum over its taps") {
    for (const ExactForm* form : exact_usable_forms()) {
        for (const Case& s : kCases) {
            const int64_t k = s.n_in * s.mel_taps * s.frame_taps;
            const double tolerance = 2e-6 + 5e-7 * std::sqrt(double(k));  // sums of k products in F32
            const std::vector<float> x = random_values(s.n_x(), 0, 1, 1);
            const std::vector<float> kernel =
                random_values(static_cast<size_t>(k * s.n_out), 0, 1 / std::sqrt(static_cast<float>(k)), 2);
            const std::vector<float> bias = random_values(static_cast<size_t>(s.n_out), 0, 1, 3);
            const std::vector<float> residual = random_values(s.n_y(), 0, 1, 4);
            for (const Activation activation : {Activation::None, Activation::Relu}) {
                for (int threads : {1, 3}) {
                    KernelGraph g;
                    ggml_tensor* tx = g.floats({s.n_in, s.mels, s.frames, s.batch}, x);
                    ggml_tensor* tk = g.floats({s.n_out, s.n_in, s.mel_taps, s.frame_taps}, kernel);
                    ggml_tensor* tb = s.bias ? g.floats({s.n_out}, bias) : nullptr;
                    ggml_tensor* tr =
                        s.residual ? g.floats({s.n_out, s.mels_out(), s.frames_out(), s.batch}, residual)
                                   : nullptr;
                    const std::vector<float> y = g.run(threads, [&](ggml_context* ctx) {
                        return exact_convolution_with(*form, ctx, tx,
                                                      {tk, tb, s.mel_stride, s.frame_stride, s.dilation}, tr,
                                                      activation);
                    });
                    check_close(y, expected(s, x, kernel, bias, residual, activation == Activation::Relu),
                                tolerance);
                }
            }
        }
    }
}

TEST_CASE("scaled ReLU: rows of a view, every form") {
    for (const ExactForm* form : exact_usable_forms()) {
        for (int64_t n : {1, 16, 33, 160}) {
            KernelGraph g;
            const std::vector<float> values = random_values(static_cast<size_t>(200 * 7), 0, 1, 1);
            const std::vector<float> scale = random_values(static_cast<size_t>(n), 0, 1, 2);
            const std::vector<float> shift = random_values(static_cast<size_t>(n), 0, 1, 3);
            ggml_tensor *x = g.floats({200, 7}, values), *ts = g.floats({n}, scale),
                        *tb = g.floats({n}, shift);
            const std::vector<float> y = g.run(2, [&](ggml_context* ctx) {
                ggml_tensor* view = ggml_view_2d(ctx, x, n, 7, x->nb[1], 3 * sizeof(float));
                return scaled_relu_with(*form, ctx, view, ts, tb);
            });
            std::vector<float> wanted;
            for (int64_t row = 0; row < 7; ++row)
                for (int64_t i = 0; i < n; ++i) {
                    const auto at = static_cast<size_t>(i);
                    wanted.push_back(std::max(
                        0.0f, values[static_cast<size_t>(row * 200 + 3 + i)] * scale[at] + shift[at]));
                }
            check_close(y, wanted, 1e-6);
        }
    }
}

TEST_CASE("context mask: means of segments, and what is appended") {
    for (int64_t frames : {1, 74, 100, 101, 250}) {
        for (int threads : {1, 3}) {
            const int64_t n = 24, batch = 2, segment = 100, n_segments = (frames - 1) / segment + 1;
            const auto size = static_cast<size_t>(n * frames * batch);
            const std::vector<float> x = random_values(size, 1, 1, 1);
            KernelGraph g;
            ggml_tensor* tx = g.floats({n, frames, batch}, x);
            const std::vector<float> contexts =
                g.run(threads, [&](ggml_context* ctx) { return segment_contexts(ctx, tx, segment); });
            const auto mean = [&](int64_t b, int64_t c, int64_t begin, int64_t end) {
                double sum = 0;
                for (int64_t t = begin; t < end; ++t) sum += x[static_cast<size_t>((b * frames + t) * n + c)];
                return sum / static_cast<double>(end - begin);
            };
            std::vector<float> wanted;
            for (int64_t b = 0; b < batch; ++b)
                for (int64_t s = 0; s < n_segments; ++s)
                    for (int64_t c = 0; c < n; ++c)
                        wanted.push_back(
                            static_cast<float>(mean(b, c, 0, frames) +
                                               mean(b, c, s * segment, std::min(frames, (s + 1) * segment))));
            check_close(contexts, wanted, 1e-5);

            const std::vector<float> mask =
                random_values(static_cast<size_t>(n * n_segments * batch), 0, 2, 2);
            const std::vector<float> held = random_values(static_cast<size_t>(64 * frames * batch), 0, 1, 3);
            ggml_tensor *tm = g.floats({n, n_segments, batch}, mask),
                        *tb = g.floats({64, frames, batch}, held);
            const std::vector<float> buffer = g.run(threads, [&](ggml_context* ctx) {
                ggml_tensor* y = append_masked(ctx, tb, tx, tm, segment, 8);
                return ggml_cont(ctx, append_masked(ctx, y, tx, nullptr, segment, 40));
            });
            wanted = held;
            for (int64_t row = 0; row < frames * batch; ++row)
                for (int64_t c = 0; c < n; ++c) {
                    const int64_t at = row / frames * n_segments + row % frames / segment;
                    const float v = x[static_cast<size_t>(row * n + c)];
                    const float logit = mask[static_cast<size_t>(at * n + c)];
                    wanted[static_cast<size_t>(row * 64 + 8 + c)] = v / (1 + std::exp(-logit));
                    wanted[static_cast<size_t>(row * 64 + 40 + c)] = v;
                }
            check_close(buffer, wanted, 1e-6);
        }
    }
}
