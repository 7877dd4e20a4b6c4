// The bodies of the convolutions. Included by the elementwise forms after their Simd and elementwise_body.h.
#pragma once

#include "kernels/convolution_form.h"
#include "kernels/elementwise_body.h"

namespace rustasr::kernels {
namespace {

// A vector of channels of which all are there, or the last ones.
struct WholeVector {
    V load(const float* p) const { return Simd::load(p); }
    void store(float* p, V x) const { Simd::store(p, x); }
};
struct PartVector {
    int64_t n;
    V load(const float* p) const { return load_part(p, n, 0.0f); }
    void store(float* p, V x) const { store_part(p, n, x); }
};

// Calls work(first channel, vector) for every vector of channels.
template <class Work>
RUSTASR_INLINE void for_channels(int64_t n, const Work& work) {
    int64_t c = 0;
    for (; c + W <= n; c += W) work(c, WholeVector{});
    if (c < n) work(c, PartVector{n - c});
}

// ---- over time, with the gate before and the norm behind

constexpr int64_t kGatedFrames = 64;    // of a block
constexpr int64_t kGatedChannels = 64;  // of a block: with its neighbours a block of gated frames stays in L1
constexpr int kOutputs = 8;             // frames that share the loads of a tap's weights
static_assert(kGatedChannels % W == 0, "whole vectors");

inline size_t gated_scratch_bytes(int64_t taps) {
    return static_cast<size_t>((kGatedFrames + taps - 1) * kGatedChannels) * sizeof(float);
}

// gated[frame - begin][kGatedChannels] of frames [begin, end) of a sequence of `length`, for n channels from
// `first` on; what lies outside the sequence is zero.
inline void gate(const GatedConvolutionArgs& a, const float* x, int64_t begin, int64_t end, int64_t length,
                 int64_t first, int64_t n, float* gated) {
    for (int64_t t = begin; t < end; t++, gated += kGatedChannels) {
        if (t < 0 || t >= length) {
            memset(gated, 0, kGatedChannels * sizeof(float));
            continue;
        }
        const float* value = x + t * 2 * a.channels + first;
        const float* gates = value + a.channels;
        for_channels(n, [&](int64_t c, auto vector) {
            Simd::store(gated + c, Simd::mul(vector.load(value + c), sigmoid(vector.load(gates + c))));
        });
    }
}

// N frames of y from gated frames on, for one vector of channels.
template <int N, class Vector>
RUSTASR_INLINE void convolve_frames(const GatedConvolutionArgs& a, const float* gated, int64_t channel,
                                    const Vector& vector, float* y) {
    V sum[N];
    const V bias = vector.load(a.bias + channel);
    RUSTASR_UNROLL
    for (int o = 0; o < N; o++) sum[o] = bias;
    for (int64_t k = 0; k < a.taps; k++) {
        const V weight = vector.load(a.kernel + k * a.channels + channel);
        const float* g = gated + k * kGatedChannels;
        RUSTASR_UNROLL
        for (int o = 0; o < N; o++) sum[o] = Simd::fma(weight, Simd::load(g + o * kGatedChannels), sum[o]);
    }
    RUSTASR_UNROLL
    for (int o = 0; o < N; o++) {
        vector.store(y + o * a.channels, a.norm_weight ? sum[o] : silu(sum[o]));
    }
}

// Rows [row_begin, row_end) of the T * B of the result.
void gated_convolution_rows(const GatedConvolutionArgs& a, int64_t row_begin, int64_t row_end,
                            float* scratch) {
    const int64_t padding = a.taps / 2, channels = a.channels;
    for (int64_t row = row_begin; row < row_end;) {
        const int64_t b = row / a.n_frames, begin = row % a.n_frames;
        int64_t end = begin + (row_end - row < kGatedFrames ? row_end - row : kGatedFrames);
        if (end > a.n_frames) end = a.n_frames;
        const int64_t length = a.lengths && a.lengths[b] < a.n_frames ? a.lengths[b] : a.n_frames;
        const float* x = a.x + b * a.n_frames * 2 * channels;
        float* y = a.y + row * channels;
        for (int64_t first = 0; first < channels; first += kGatedChannels) {
            const int64_t n = channels - first < kGatedChannels ? channels - first : kGatedChannels;
            gate(a, x, begin - padding, end + padding, length, first, n, scratch);
            for_channels(n, [&](int64_t c, auto vector) {
                int64_t t = 0;
                for (; t + kOutputs <= end - begin; t += kOutputs) {
                    convolve_frames<kOutputs>(a, scratch + t * kGatedChannels + c, first + c, vector,
                                              y + t * channels + first + c);
                }
                for (; t < end - begin; t++) {
                    convolve_frames<1>(a, scratch + t * kGatedChannels + c, first + c, vector,
                                       y + t * channels + first + c);
                }
            });
        }
        if (a.norm_weight) {
            for (int64_t t = 0; t < end - begin; t++) {
                float* frame = y + t * channels;
                layer_norm(frame, a.norm_weight, a.norm_bias, channels, a.eps, frame);
                silu_row(frame, nullptr, channels, frame);
            }
        }
        row += end - begin;
    }
}

// ---- over mels and time, stride 2

constexpr int kPlaces = 4;  // of the result that share the loads of a tap's weights

// N places of a row of a depthwise convolution, from `place` on; every mel tap from kf_begin to kf_end - 1
// meets a place of the input. rows[taps]: frames [C, F] of the input, nullptr for zeros.
template <int N>
RUSTASR_INLINE void depthwise_places(const StridedConvolutionArgs& a, const float* const* rows, int64_t place,
                                     int64_t kf_begin, int64_t kf_end, float* y) {
    const int64_t channels = a.channels, first = 2 * place - a.taps / 2;
    for_channels(channels, [&](int64_t c, auto vector) {
        V sum[N];
        const V bias = vector.load(a.depthwise_bias + c);
        RUSTASR_UNROLL
        for (int o = 0; o < N; o++) sum[o] = bias;
        for (int64_t kt = 0; kt < a.taps; kt++) {
            if (!rows[kt]) continue;
            for (int64_t kf = kf_begin; kf < kf_end; kf++) {
                const V weight = vector.load(a.depthwise_kernel + (kt * a.taps + kf) * channels + c);
                const float* x = rows[kt] + (first + kf) * channels + c;
                RUSTASR_UNROLL
                for (int o = 0; o < N; o++) {
                    sum[o] = Simd::fma(weight, vector.load(x + 2 * o * channels), sum[o]);
                }
            }
        }
        RUSTASR_UNROLL
        for (int o = 0; o < N; o++) vector.store(y + (place + o) * channels + c, sum[o]);
    });
}

// One frame [C, F'] from the frames `rows` of n_mels places.
inline void depthwise_frame(const StridedConvolutionArgs& a, const float* const* rows, int64_t n_mels,
                            float* y) {
    const int64_t padding = a.taps / 2, n_places = halved(n_mels);
    // Places [inner_begin, inner_end) of the result meet the input with every tap.
    int64_t inner_begin = (padding + 1) / 2, inner_end = (n_mels - 1 - padding) / 2 + 1;
    if (n_mels <= padding) inner_end = 0;
    for (int64_t place = 0; place < n_places;) {
        if (place >= inner_begin && place + kPlaces <= inner_end) {
            depthwise_places<kPlaces>(a, rows, place, 0, a.taps, y);
            place += kPlaces;
            continue;
        }
        const int64_t first = 2 * place - padding, left = n_mels - first;
        depthwise_places<1>(a, rows, place, first < 0 ? -first : 0, left < a.taps ? left : a.taps, y);
        place++;
    }
}

// N places of a row of an input convolution. lines[taps][stride]: frames of the mel between zeros.
template <int N, Activation kActivation>
RUSTASR_INLINE void input_places(const StridedConvolutionArgs& a, const float* lines, int64_t stride,
                                 int64_t place, float* y) {
    for_channels(a.channels, [&](int64_t c, auto vector) {
        V sum[N];
        const V bias = vector.load(a.input_bias + c);
        RUSTASR_UNROLL
        for (int o = 0; o < N; o++) sum[o] = bias;
        for (int64_t kt = 0; kt < a.taps; kt++) {
            for (int64_t kf = 0; kf < a.taps; kf++) {
                const V weight = vector.load(a.input_kernel + (kt * a.taps + kf) * a.channels + c);
                const float* x = lines + kt * stride + 2 * place + kf;
                RUSTASR_UNROLL
                for (int o = 0; o < N; o++) sum[o] = Simd::fma(weight, Simd::set1(x[2 * o]), sum[o]);
            }
        }
        RUSTASR_UNROLL
        for (int o = 0; o < N; o++) {
            const V z = kActivation == Activation::Gelu ? gelu(sum[o]) : Simd::max(sum[o], Simd::zero());
            vector.store(y + (place + o) * a.channels + c, z);
        }
    });
}

template <Activation kActivation>
void input_row(const StridedConvolutionArgs& a, const float* lines, int64_t stride, int64_t n_places,
               float* y) {
    int64_t place = 0;
    for (; place + kPlaces <= n_places; place += kPlaces)
        input_places<kPlaces, kActivation>(a, lines, stride, place, y);
    for (; place < n_places; place++) input_places<1, kActivation>(a, lines, stride, place, y);
}

// Frame t of the input convolution of sequence b: [C, F']. `lines` has room for taps * (F + taps) floats.
inline void input_frame(const StridedConvolutionArgs& a, int64_t b, int64_t t, float* lines, float* y) {
    const int64_t padding = a.taps / 2, stride = a.n_mels + a.taps, n_places = halved(a.n_mels);
    for (int64_t k = 0; k < a.taps; k++) {
        const int64_t frame = 2 * t - padding + k;
        float* line = lines + k * stride;
        memset(line, 0, static_cast<size_t>(stride) * sizeof(float));
        if (frame < 0 || frame >= a.n_frames) continue;
        memcpy(line + padding, a.x + (b * a.n_frames + frame) * a.n_mels,
               static_cast<size_t>(a.n_mels) * sizeof(float));
    }
    if (a.activation == Activation::Gelu) {
        input_row<Activation::Gelu>(a, lines, stride, n_places, y);
    } else {
        input_row<Activation::Relu>(a, lines, stride, n_places, y);
    }
}

// Frames of the result of an input convolution that a depthwise one reads, kept in a ring: one for each tap.
inline size_t strided_scratch_bytes(const StridedConvolutionArgs& a) {
    const int64_t lines = a.input_kernel ? a.taps * (a.n_mels + a.taps) : 0;
    const int64_t ring = a.input_kernel && a.depthwise_kernel ? a.taps * halved(a.n_mels) * a.channels : 0;
    return static_cast<size_t>(lines + ring) * sizeof(float);
}

void input_frames(const StridedConvolutionArgs& a, int64_t frame_begin, int64_t frame_end, float* scratch) {
    const int64_t n_frames = halved(a.n_frames), frame_size = halved(a.n_mels) * a.channels;
    for (int64_t i = frame_begin; i < frame_end; i++) {
        input_frame(a, i / n_frames, i % n_frames, scratch, a.y + i * frame_size);
    }
}

void depthwise_frames(const StridedConvolutionArgs& a, int64_t frame_begin, int64_t frame_end,
                      float* scratch) {
    const int64_t padding = a.taps / 2;
    const int64_t n_mels = a.input_kernel ? halved(a.n_mels) : a.n_mels;
    const int64_t n_inputs = a.input_kernel ? halved(a.n_frames) : a.n_frames;
    const int64_t n_outputs = halved(n_inputs), input_size = n_mels * a.channels;
    float* ring = scratch + a.taps * (a.n_mels + a.taps);
    int64_t computed = 0, sequence = -1;  // frames of `sequence` below `computed` are in the ring
    for (int64_t i = frame_begin; i < frame_end; i++) {
        const int64_t b = i / n_outputs, t = i % n_outputs;
        const int64_t length = a.lengths && a.lengths[b] < n_inputs ? a.lengths[b] : n_inputs;
        if (b != sequence) computed = 2 * t - padding < 0 ? 0 : 2 * t - padding;
        sequence = b;
        const float* rows[kMostTaps];
        for (int64_t k = 0; k < a.taps; k++) {
            const int64_t frame = 2 * t - padding + k;
            rows[k] = nullptr;
            if (frame < 0 || frame >= length) continue;
            if (!a.input_kernel) {
                rows[k] = a.x + (b * n_inputs + frame) * input_size;
                continue;
            }
            float* slot = ring + frame % a.taps * input_size;
            if (frame >= computed) {
                input_frame(a, b, frame, scratch, slot);
                computed = frame + 1;
            }
            rows[k] = slot;
        }
        depthwise_frame(a, rows, n_mels, a.y + i * halved(n_mels) * a.channels);
    }
}

// Frames [frame_begin, frame_end) of the T' * B of the result.
void strided_convolution_frames(const StridedConvolutionArgs& a, int64_t frame_begin, int64_t frame_end,
                                float* scratch) {
    if (a.depthwise_kernel) return depthwise_frames(a, frame_begin, frame_end, scratch);
    input_frames(a, frame_begin, frame_end, scratch);
}

// What elementwise_<isa>.cpp offers.
const ElementwiseForm& elementwise_form(const char* name) {
    static const ElementwiseForm form = {
        name,
        maximum,
        sum_exp,
        argmax,
        layer_norm,
        rms_norm,
        rms_norm_rotate,
        gelu_row,
        silu_row,
        add_scaled_row,
        gated_scratch_bytes,
        gated_convolution_rows,
        strided_scratch_bytes,
        strided_convolution_frames,
    };
    return form;
}

}  // namespace
}  // namespace rustasr::kernels
