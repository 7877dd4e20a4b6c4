// Dense convolutions as products: the patches against a plain loop, and the quantised form against the
// product of patches that are laid out.
#include <string>

#include "check.h"
#include "kernels/dense_convolution.h"
#include "q8_problem.h"

namespace {

struct Shape {
    int64_t channels, mels, frames, batch;
    int64_t mels_out() const { return (mels - 1) / 2 + 1; }
    int64_t frames_out() const { return (frames - 1) / 2 + 1; }
    int64_t places_out() const { return mels_out() * frames_out() * batch; }
};

const Shape kShapes[] = {{32, 8, 10, 1},  {32, 7, 9, 3}, {64, 1, 5, 2}, {32, 5, 1, 2},
                         {96, 64, 50, 1}, {32, 1, 1, 1}, {32, 2, 2, 4}, {64, 16, 13, 5}};

std::vector<float> values_of(const Shape& s) {
    return normal_values(static_cast<size_t>(s.channels * s.mels * s.frames * s.batch),
                         static_cast<unsigned>(s.mels * 100 + s.frames));
}

/// Rows of the inputs of every output, by definition.
std::vector<float> patches_of(const Shape& s, int64_t taps, const std::vector<float>& x) {
    std::vector<float> out;
    for (int64_t b = 0; b < s.batch; ++b)
        for (int64_t t = 0; t < s.frames_out(); ++t)
            for (int64_t m = 0; m < s.mels_out(); ++m)
                for (int64_t tt = 0; tt < taps; ++tt)
                    for (int64_t mt = 0; mt < taps; ++mt)
                        for (int64_t c = 0; c < s.channels; ++c) {
                            const int64_t frame = 2 * t + tt - taps / 2, mel = 2 * m + mt - taps / 2;
                            const bool inside = frame >= 0 && frame < s.frames && mel >= 0 && mel < s.mels;
                            const int64_t at = ((b * s.frames + frame) * s.mels + mel) * s.channels + c;
                            out.push_back(inside ? x[static_cast<size_t>(at)] : 0.0f);
                        }
    return out;
}

}  // namespace

TEST_CASE("dense convolution: patches are the inputs of each output, zeros outside") {
    for (const Shape& s : kShapes) {
        for (int64_t taps : {1, 3, 5}) {
            Graph g;
            ggml_tensor* x = g.input(GGML_TYPE_F32, {s.channels, s.mels, s.frames, s.batch});
            g.allocate();
            const std::vector<float> values = values_of(s);
            ggml_backend_tensor_set(x, values.data(), 0, ggml_nbytes(x));
            ggml_tensor* y = convolution_patches(g.ctx, x, taps);
            CHECK(y->ne[0] == taps * taps * s.channels);
            CHECK(y->ne[1] == s.mels_out());
            CHECK(y->ne[2] == s.frames_out());
            CHECK(y->ne[3] == s.batch);
            CHECK(g.compute(y, 2) == patches_of(s, taps, values));
        }
    }
}

TEST_CASE("dense convolution: the quantised form equals the product of the patches, bit for bit") {
    for (const Q8Form* form : forms()) {
        for (const Shape& s : kShapes) {
            for (int threads : {1, 2, 3}) {
                const int64_t k = 9 * s.channels, n = 48 + s.mels % 3;
                const std::vector<float> values = values_of(s);
                const Quants quants = kQuants[threads % 2];
                Problem laid_out = make_problem(k, n, {s.places_out()}, 3, quants);
                laid_out.x = patches_of(s, 3, values);
                laid_out.bias = normal_values(static_cast<size_t>(n), 5);
                laid_out.activation = s.batch % 2 ? Activation::Gelu : Activation::None;

                const UseForm use(form);
                Graph g;
                ggml_tensor* w =
                    g.input(GGML_TYPE_I8, {static_cast<int64_t>(q8_packed_nbytes(k, n, quants))});
                ggml_tensor* x = g.input(GGML_TYPE_F32, {s.channels, s.mels, s.frames, s.batch});
                ggml_tensor* bias = g.input(GGML_TYPE_F32, {n});
                g.allocate();
                q8_pack(laid_out.weights.data(), k, n, w->data, quants);
                ggml_backend_tensor_set(x, values.data(), 0, ggml_nbytes(x));
                ggml_backend_tensor_set(bias, laid_out.bias.data(), 0, ggml_nbytes(bias));
                ggml_tensor* y =
                    q8_convolution(g.ctx, w, n, q8_quantize(g.ctx, x), 3, bias, laid_out.activation, quants);
                CHECK(g.compute(y, threads) == solve(laid_out, form));
            }
        }
    }
}
