#pragma once
// A transducer's decoder with random weights, as a model file, and beside it the same networks in plain
// double arithmetic, for the tests of what is built on them.

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/weights.h"
#include "decode/recognition.h"
#include "ggml.h"
#include "gguf_writer.h"
#include "nn/transducer.h"

namespace rustasr::test {

using Doubles = std::vector<double>;

struct ToySizes {
    int n_vocab = 6, pred_layers = 2, pred_hidden = 10, joint_hidden = 9, d_model = 7, max_symbols = 10;
    std::vector<int32_t> durations;  // none: RNN-T
    ggml_type type = GGML_TYPE_F32;  // of the matrices
    float spread = 0.7f;             // of the weights
    float blank_bias = 0;            // added to the blank's logit
    std::vector<float> duration_bias;
    int n_classes() const { return n_vocab + 1 + static_cast<int>(durations.size()); }
};

/// Tensors of a file: their values as the file rounds them.
class ToyFile {
   public:
    ToyFile(const ToySizes& s, uint32_t seed) : sizes(s), random_(seed) {
        image.string("head.type", s.durations.empty() ? "rnnt" : "tdt");
        const auto key = [&](const char* name, int value) {
            image.scalar(std::string("head.") + name, U32, static_cast<uint32_t>(value));
        };
        key("n_vocab", s.n_vocab);
        key("blank_id", s.n_vocab);
        key("pred_layers", s.pred_layers);
        key("pred_hidden", s.pred_hidden);
        key("joint_hidden", s.joint_hidden);
        key("max_symbols", s.max_symbols);
        if (!s.durations.empty()) image.array("head.durations", I32, s.durations);

        const auto p = static_cast<uint64_t>(s.pred_hidden), j = static_cast<uint64_t>(s.joint_hidden);
        const auto n_tokens = static_cast<uint64_t>(s.n_vocab) + 1;
        matrix("prediction.embed", p, n_tokens, false);
        for (int i = 0; i < s.pred_layers; ++i)
            matrix("prediction.lstm." + std::to_string(i), 2 * p, 4 * p, true);
        matrix("joint.enc", static_cast<uint64_t>(s.d_model), j, true);
        matrix("joint.pred", p, j, true);
        matrix("joint.out", j, static_cast<uint64_t>(s.n_classes()), true);
    }

    std::shared_ptr<const GgufFile> parse() const {
        GgufImage copy = image;
        copy.data_bytes = data_.size();
        std::vector<uint8_t> bytes = copy.bytes();
        std::copy(data_.begin(), data_.end(), bytes.end() - static_cast<std::ptrdiff_t>(data_.size()));
        return GgufFile::parse(MappedFile::of_bytes(std::move(bytes), "toy.gguf"));
    }

    ToySizes sizes;
    GgufImage image;
    std::map<std::string, Doubles> values;

   private:
    void matrix(const std::string& name, uint64_t k, uint64_t n, bool bias) {
        const float scale = sizes.spread * (name == "joint.out" ? 2.0f : 1.0f);
        std::vector<float> w = normal(k * n, scale);
        if (name == "prediction.embed") std::fill(w.end() - static_cast<std::ptrdiff_t>(k), w.end(), 0.0f);
        add(name + ".weight", {k, n}, sizes.type, std::move(w));
        if (!bias) return;
        std::vector<float> b = normal(n, scale);
        if (name == "joint.out") {
            b[static_cast<size_t>(sizes.n_vocab)] += sizes.blank_bias;
            for (size_t i = 0; i < sizes.duration_bias.size(); ++i)
                b[static_cast<size_t>(sizes.n_vocab) + 1 + i] += sizes.duration_bias[i];
        }
        add(name + ".bias", {n}, GGML_TYPE_F32, std::move(b));
    }

    std::vector<float> normal(size_t n, float scale) {
        std::normal_distribution<float> distribution(0, 1);
        std::vector<float> x(n);
        for (float& v : x) v = scale * distribution(random_);
        return x;
    }

    void add(const std::string& name, const std::vector<uint64_t>& ne, ggml_type type, std::vector<float> x) {
        data_.resize((data_.size() + 31) / 32 * 32);
        const size_t at = data_.size();
        image.tensor(name, ne, type, at);
        data_.resize(at + x.size() * ggml_type_size(type));
        for (size_t i = 0; i < x.size(); ++i) {
            if (type == GGML_TYPE_F32) {
                std::memcpy(&data_[at + 4 * i], &x[i], 4);
            } else {
                const ggml_fp16_t half = ggml_fp32_to_fp16(x[i]);
                std::memcpy(&data_[at + 2 * i], &half, 2);
                x[i] = ggml_fp16_to_fp32(half);
            }
        }
        values[name] = Doubles(x.begin(), x.end());
    }

    std::mt19937 random_;
    std::vector<uint8_t> data_;
};

/// The networks as the specification writes them.
class PlainTransducer {
   public:
    explicit PlainTransducer(const ToyFile& file) : sizes(file.sizes), values_(file.values) {}

    struct State {
        std::vector<Doubles> h, c;  // by layer
    };
    State start() const {
        const Doubles zeros(static_cast<size_t>(sizes.pred_hidden), 0.0);
        return {std::vector<Doubles>(static_cast<size_t>(sizes.pred_layers), zeros),
                std::vector<Doubles>(static_cast<size_t>(sizes.pred_layers), zeros)};
    }

    /// Reads a token, changes the state, returns joint.pred [J].
    Doubles predict(int32_t token, State& state) const {
        const auto p = static_cast<size_t>(sizes.pred_hidden);
        const Doubles& embed = values_.at("prediction.embed.weight");
        Doubles x(embed.begin() + token * sizes.pred_hidden, embed.begin() + (token + 1) * sizes.pred_hidden);
        for (size_t layer = 0; layer < state.h.size(); ++layer) {
            Doubles &h = state.h[layer], &c = state.c[layer];
            x.insert(x.end(), h.begin(), h.end());
            const Doubles gates = linear("prediction.lstm." + std::to_string(layer), x);
            for (size_t j = 0; j < p; ++j) {  // torch.nn.LSTM
                const double i = sigmoid(gates[j]), f = sigmoid(gates[p + j]);
                const double g = std::tanh(gates[2 * p + j]), o = sigmoid(gates[3 * p + j]);
                c[j] = f * c[j] + i * g;
                h[j] = o * std::tanh(c[j]);
            }
            x = h;
        }
        return linear("joint.pred", x);
    }

    /// frame [J] is joint.enc already.
    Doubles joint(const float* frame, const Doubles& prediction) const {
        Doubles x = prediction;
        for (size_t j = 0; j < x.size(); ++j) x[j] = std::max(0.0, x[j] + static_cast<double>(frame[j]));
        return linear("joint.out", x);
    }

    Doubles linear(const std::string& name, const Doubles& x) const {
        const Doubles& w = values_.at(name + ".weight");
        Doubles y = values_.at(name + ".bias");
        for (size_t r = 0; r < y.size(); ++r) {
            for (size_t j = 0; j < x.size(); ++j) y[r] += w[r * x.size() + j] * x[j];
        }
        return y;
    }

    const ToySizes sizes;

   private:
    static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
    std::map<std::string, Doubles> values_;
};

inline double log_sum_exp(const double* x, size_t n) {
    double peak = x[0], sum = 0;
    for (size_t i = 0; i < n; ++i) peak = std::max(peak, x[i]);
    for (size_t i = 0; i < n; ++i) sum += std::exp(x[i] - peak);
    return peak + std::log(sum);
}

/// The file loaded, with frames to search in.
class ToyTransducer {
   public:
    ToyTransducer(const ToySizes& sizes, uint32_t seed, int threads = 2)
        : file(sizes, seed),
          plain(file),
          store_(file.parse(), find_device("cpu")),
          backend(find_device("cpu"), threads),
          head(store_.root(), TransducerConfig::read(store_.file(), sizes.d_model)) {
        store_.load(1);
    }

    /// Random frames [J, T_max, B].
    const EncodedFrames& make_frames(const std::vector<int>& lengths, uint32_t seed, float spread = 2) {
        int longest = 1;
        for (int n : lengths) longest = std::max(longest, n);
        context_.reset(ggml_init({ggml_tensor_overhead(), nullptr, true}));
        frames.values = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F32, head.config.joint_hidden, longest,
                                           static_cast<int64_t>(lengths.size()));
        frames.lengths = lengths;
        buffer_ = backend.allocate(context_.get(), "frames");
        std::mt19937 random(seed);
        std::normal_distribution<float> normal(0, spread);
        auto* at = static_cast<float*>(frames.values->data);
        for (int64_t i = 0; i < ggml_nelements(frames.values); ++i) at[i] = normal(random);
        return frames;
    }
    const float* frame(int utterance, int t) const {
        return static_cast<const float*>(frames.values->data) +
               (utterance * frames.values->ne[1] + t) * frames.values->ne[0];
    }

    ToyFile file;
    PlainTransducer plain;

   private:
    WeightStore store_;
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;

   public:
    Backend backend;
    TransducerHead head;
    EncodedFrames frames;
};

}  // namespace rustasr::test
