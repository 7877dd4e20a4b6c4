// Silero VAD, the network of versions 5 and 6: the probability of speech in each frame of 32 ms. Follows
// silero_vad/data/silero_vad.jit (silero-vad 6.2.3: vad_annotator.py, pytorch_stft.py, model_utils.py in it)
// and OnnxWrapper in silero_vad/utils_vad.py. Its sizes at 16 kHz, F frames at once:
//
//   samples: 64 of the frame before, 512, then 64 reflected       [640, F]
//   stft        magnitudes of windows of 256, every 128           [129, 4, F]
//     each with its neighbours                                    [3·129, 4·F]
//   encoder.0   k3 s1, ReLU                                       [128, 4·F]
//   encoder.1   k3 s2, ReLU                                       [64, 2, F]
//   encoder.2   k3 s2, ReLU: the first tap meets padding          [64, F]
//   encoder.3   k3 s1, ReLU: the outer taps meet padding          [128, F]
//   lstm        the state goes from frame to frame                [128, F]
//   output      ReLU, 128 → 1, sigmoid                            [F]
//
// The spectrum is a Fourier transform on the CPU (frontend/fft), not the product with cosines and sines of
// the official file, which takes three times as long; what is laid out for encoder.0 is filled with zeros to
// whole vectors of 16, without which ggml's fast products do not take it.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "frontend/fft.h"
#include "models/model.h"
#include "nn/layers.h"
#include "nn/lstm.h"

namespace rustasr {
namespace {

constexpr int kSteps = 4;            // windows of a frame: what the strides of the encoder leave one of
constexpr int64_t kMostFrames = 64;  // in one graph: its tensors stay in the second-level cache

struct SileroConfig {
    int window;                     // samples of a frame
    int context;                    // samples before it that it sees
    int padding;                    // samples reflected behind it
    int n_fft, hop_length;          // of the spectra
    std::vector<int32_t> channels;  // of the encoder's outputs
    int n_hidden;

    /// Throws ModelFileError, or UnsupportedModelError for other windows than the published ones.
    static SileroConfig read(const GgufFile& file);
    int n_signal() const { return context + window + padding; }
    int n_bins() const { return n_fft / 2 + 1; }
    int n_patch() const { return (3 * n_bins() + 15) / 16 * 16; }  // three spectra, then zeros
};

SileroConfig SileroConfig::read(const GgufFile& file) {
    const auto size = [&](const char* name, uint32_t max) {
        return static_cast<int>(file.u32(std::string("silero_vad.") + name, 1, max));
    };
    SileroConfig c{};
    c.window = size("window", 4096);
    c.context = size("context", 4096);
    c.padding = size("padding", 4096);
    c.n_fft = size("n_fft", 4096);
    c.hop_length = size("hop_length", 4096);
    c.channels = file.i32_array("silero_vad.channels");
    c.n_hidden = size("n_hidden", 4096);
    const auto fail = [&](const std::string& key, const std::string& expected, const std::string& found) {
        throw UnsupportedModelError(file.path() + ": key silero_vad." + key + ": expected " + expected +
                                    ", found " + found);
    };
    file.u32("silero_vad.sample_rate", 16000, 16000);
    if (c.channels.size() != 4) fail("channels", "4 numbers", std::to_string(c.channels.size()));
    for (int32_t n : c.channels) {
        if (n < 1 || n > 4096) fail("channels", "numbers from 1 to 4096", std::to_string(n));
    }
    if (c.context > c.window) fail("context", "at most silero_vad.window", std::to_string(c.context));
    if (c.padding >= c.window) fail("padding", "less than silero_vad.window", std::to_string(c.padding));
    if (c.n_fft < 4 || (c.n_fft & (c.n_fft - 1)) != 0) fail("n_fft", "a power of 2", std::to_string(c.n_fft));
    const int covered = c.n_fft + (kSteps - 1) * c.hop_length;
    if (covered != c.n_signal()) {
        fail("n_fft", "windows that cover " + std::to_string(c.n_signal()) + " samples",
             std::to_string(covered));
    }
    return c;
}

/// Frames of samples → what encoder.0 reads.
class SileroFrontend {
   public:
    SileroFrontend(Weights w, const SileroConfig& c)
        : config_(c), fft_(c.n_fft), window_(w.host_f32("window", {c.n_fft})) {}

    /// signals [n_signal, F] → the magnitudes' places in patches [n_patch, kSteps, F]; the others are not
    /// touched. Computes the share of thread `ith` of `nth`.
    void compute(const float* signals, int64_t n_frames, float* patches, int ith, int nth) const;

   private:
    const SileroConfig& config_;
    RealFft fft_;
    const float* window_;  // [n_fft]
};

void SileroFrontend::compute(const float* signals, int64_t n_frames, float* patches, int ith, int nth) const {
    static_assert(kFftLanes % kSteps == 0, "lanes hold whole frames");
    constexpr int64_t kMost = kFftLanes / kSteps;  // frames at once
    const int64_t n_bins = config_.n_bins(), n_patch = config_.n_patch();
    std::vector<FftLane> windows(static_cast<size_t>(config_.n_fft)), scratch(fft_.scratch_size());
    std::vector<FftLane> power(static_cast<size_t>(n_bins));
    std::vector<float> magnitude(static_cast<size_t>(n_bins));
    for (int64_t first = ith * kMost; first < n_frames; first += nth * kMost) {
        const int64_t n = std::min(kMost, n_frames - first);
        for (int64_t lane = 0; lane < kFftLanes; ++lane) {  // lanes that are left over repeat the last frame
            const int64_t frame = first + std::min(lane / kSteps, n - 1);
            const float* from = signals + frame * config_.n_signal() + lane % kSteps * config_.hop_length;
            for (size_t i = 0; i < windows.size(); ++i) windows[i].v[lane] = double(from[i]) * window_[i];
        }
        fft_.power(windows.data(), scratch.data(), power.data());
        for (int64_t lane = 0; lane < n * kSteps; ++lane) {
            for (size_t k = 0; k < magnitude.size(); ++k)
                magnitude[k] = std::sqrt(static_cast<float>(power[k].v[lane]));
            // The last tap of the place before, the middle one of its own, the first one of the next.
            float* place = patches + (first * kSteps + lane) * n_patch;
            if (lane % kSteps > 0) std::copy_n(magnitude.begin(), n_bins, place - n_patch + 2 * n_bins);
            std::copy_n(magnitude.begin(), n_bins, place + n_bins);
            if (lane % kSteps + 1 < kSteps) std::copy_n(magnitude.begin(), n_bins, place + n_patch);
        }
    }
}

struct SileroNetwork {
    SileroNetwork(Weights w, const SileroConfig& c)
        : conv0(w / "encoder" / 0, c.n_patch(), c.channels[0]),
          conv1(w / "encoder" / 1, c.channels[0], c.channels[1], 3, 2),
          conv2(w / "encoder" / 2, int64_t{2} * c.channels[1], c.channels[2]),
          conv3(w / "encoder" / 3, c.channels[2], c.channels[3]),
          lstm(w / "lstm", c.channels[3], c.n_hidden),
          output(w / "output", c.n_hidden, 1) {}

    /// patches [n_patch, kSteps·F] → [channels[3], F]
    ggml_tensor* encode(Graph& graph, ggml_tensor* patches) const;

    Linear conv0;
    Conv1d conv1;
    Linear conv2, conv3;  // of the taps that meet more than padding
    LstmSequence lstm;
    Linear output;
};

ggml_tensor* SileroNetwork::encode(Graph& graph, ggml_tensor* patches) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n_frames = patches->ne[1] / kSteps;
    ggml_tensor* x = conv0(graph, patches, Activation::Relu);
    x = ggml_reshape_3d(ctx, x, x->ne[0], kSteps, n_frames);
    x = conv1(graph, pad_frames(graph, x, 1, 0), Activation::Relu);
    x = conv2(graph, ggml_reshape_2d(ctx, x, 2 * x->ne[0], n_frames), Activation::Relu);
    return conv3(graph, x, Activation::Relu);
}

class SileroModel : public Model {
   public:
    explicit SileroModel(std::unique_ptr<WeightStore> store)
        : Model(std::move(store)),
          config(SileroConfig::read(store_->file())),
          frontend(store_->root() / "vad" / "stft", config),
          network(store_->root() / "vad", config) {}
    std::unique_ptr<Session> session() const override;

    const SileroConfig config;
    const SileroFrontend frontend;
    const SileroNetwork network;
};

/// The graph of so many frames.
struct Pass {
    Pass(Backend& backend, const SileroModel& model, int64_t n_frames);
    int64_t n_frames;
    Graph graph;
    ggml_tensor* patches;        // [n_patch, kSteps·F]
    ggml_tensor* state;          // [2·n_hidden]: h, then c, before the first frame
    ggml_tensor* last_state;     // the same after the last one
    ggml_tensor* probabilities;  // [1, F]
};

Pass::Pass(Backend& backend, const SileroModel& model, int64_t n_frames)
    : n_frames(n_frames), graph(backend, 128 + 16 * static_cast<size_t>(n_frames), kernels::Precision::F32) {
    const SileroConfig& c = model.config;
    const SileroNetwork& network = model.network;
    ggml_context* ctx = graph.ctx();
    patches = graph.input(GGML_TYPE_F32, {c.n_patch(), kSteps * n_frames});
    state = graph.input(GGML_TYPE_F32, {int64_t{2} * c.n_hidden});
    ggml_tensor* states = network.lstm(graph, network.encode(graph, patches), state);
    ggml_tensor* h = ggml_cont(ctx, ggml_view_2d(ctx, states, c.n_hidden, n_frames, states->nb[1], 0));
    probabilities = ggml_sigmoid(ctx, network.output(graph, ggml_relu(ctx, h)));
    last_state = ggml_cont(ctx, ggml_view_1d(ctx, states, int64_t{2} * c.n_hidden,
                                             static_cast<size_t>(n_frames - 1) * states->nb[1]));
    graph.output(probabilities);
    graph.output(last_state);
    graph.finish();
}

class SileroSession : public Session {
   public:
    SileroSession(std::shared_ptr<const SileroModel> model, ggml_backend_dev_t device)
        : Session(device, model->threads()),
          model_(std::move(model)),
          config_(model_->config),
          place_(start()),
          patches_(static_cast<size_t>(kMostFrames * kSteps * config_.n_patch())) {}

    std::vector<float> speech_probabilities(const float* pcm, int64_t n_samples) override;
    void reset() override { place_ = start(); }

   private:
    /// What a recording leaves for its next frame.
    struct Place {
        std::vector<float> context;  // samples
        std::vector<float> state;    // [2·n_hidden]
    };
    Place start() const;
    Pass& pass_for(int64_t n_frames);
    /// What the network sees of the next frames; behind the samples lie zeros.
    void cut(const float* pcm, int64_t n_samples, int64_t n_frames, Place& place);

    std::shared_ptr<const SileroModel> model_;
    const SileroConfig& config_;
    Place place_;
    std::vector<float> signals_;  // [n_signal, F]
    std::vector<float> patches_;  // [n_patch, kSteps·F]
    /// The graph of kMostFrames, and that of the last smaller number.
    std::unique_ptr<Pass> most_, fewer_;
};

SileroSession::Place SileroSession::start() const {
    return {std::vector<float>(static_cast<size_t>(config_.context)),
            std::vector<float>(static_cast<size_t>(config_.n_hidden) * 2)};
}

Pass& SileroSession::pass_for(int64_t n_frames) {
    std::unique_ptr<Pass>& pass = n_frames == kMostFrames ? most_ : fewer_;
    if (!pass || pass->n_frames != n_frames) pass = std::make_unique<Pass>(backend_, *model_, n_frames);
    return *pass;
}

void SileroSession::cut(const float* pcm, int64_t n_samples, int64_t n_frames, Place& place) {
    signals_.resize(static_cast<size_t>(n_frames * config_.n_signal()));
    auto to = signals_.begin();
    for (int64_t first = 0; first < n_frames * config_.window; first += config_.window) {
        to = std::copy(place.context.begin(), place.context.end(), to);
        const int64_t n = std::min<int64_t>(config_.window, n_samples - first);
        const auto end = to + config_.window;
        std::fill(std::copy_n(pcm + first, n, to), end, 0.0f);
        std::copy(end - config_.context, end, place.context.begin());
        to = std::reverse_copy(end - 1 - config_.padding, end - 1, end);  // without the edge itself
    }
    backend_.parallel([&](int ith, int nth) {
        model_->frontend.compute(signals_.data(), n_frames, patches_.data(), ith, nth);
    });
}

std::vector<float> SileroSession::speech_probabilities(const float* pcm, int64_t n_samples) {
    const int64_t size = config_.window, n_frames = (n_samples + size - 1) / size;
    std::vector<float> probabilities(static_cast<size_t>(n_frames));
    Place place = place_;
    for (int64_t done = 0; done < n_frames;) {
        Pass& pass = pass_for(std::min(kMostFrames, n_frames - done));
        cut(pcm + done * size, n_samples - done * size, pass.n_frames, place);
        write(pass.patches, patches_.data());
        write(pass.state, place.state.data());
        pass.graph.run();
        read(pass.probabilities, &probabilities[static_cast<size_t>(done)]);
        read(pass.last_state, place.state.data());
        done += pass.n_frames;
    }
    place_ = std::move(place);
    return probabilities;
}

std::unique_ptr<Session> SileroModel::session() const {
    auto self = std::static_pointer_cast<const SileroModel>(shared_from_this());
    return std::make_unique<SileroSession>(std::move(self), store_->device());
}

}  // namespace

std::unique_ptr<Model> make_silero_vad(std::unique_ptr<WeightStore> store) {
    return std::make_unique<SileroModel>(std::move(store));
}

}  // namespace rustasr
