// Silero VAD, the network of versions 5 and 6: the probability of speech in each frame of 32 ms. Follows
// silero_vad/data/silero_vad.jit (silero-vad 6.2.3: vad_annotator.py, pytorch_stft.py, model_utils.py in it)
// and OnnxWrapper in silero_vad/utils_vad.py. Its sizes at 16 kHz, F frames at once:
//
//   samples: 64 of the frame before, 512, then 64 reflected       [640, F]
//     in windows of 256, every 128                                [256, 4·F]
//   stft        · Hann-weighted cosines and sines                 [2·129, 4·F]
//     √(re² + im²)                                                [129, 4, F]
//   encoder.0   k3 s1, ReLU                                       [128, 4, F]
//   encoder.1   k3 s2, ReLU                                       [64, 2, F]
//   encoder.2   k3 s2, ReLU: the first tap meets padding          [64, F]
//   encoder.3   k3 s1, ReLU: the outer taps meet padding          [128, F]
//   lstm        the state goes from frame to frame                [128, F]
//   output      ReLU, 128 → 1, sigmoid                            [F]
//
// Frequencies are filled with zeros to 144 (n_bins): rows of 3·129 values would miss ggml's fast products.

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "models/model.h"
#include "nn/layers.h"
#include "nn/lstm.h"

namespace rustasr {
namespace {

constexpr int kSteps = 4;            // windows of a frame: what the strides of the encoder leave one of
constexpr int64_t kMostFrames = 64;  // in one graph: its tensors stay in the second-level cache

struct SileroConfig {
    int window;   // samples of a frame
    int context;  // samples before it that it sees
    int padding;  // samples reflected behind it
    int n_fft, hop_length;
    int n_bins;                     // frequencies, with those that are zero
    std::vector<int32_t> channels;  // of the encoder's outputs
    int n_hidden;

    /// Throws ModelFileError, or UnsupportedModelError for other windows than the published ones.
    static SileroConfig read(const GgufFile& file);
    int n_signal() const { return context + window + padding; }
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
    c.n_bins = size("n_bins", 4096);
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
    const int covered = c.n_fft + (kSteps - 1) * c.hop_length;
    if (covered != c.n_signal()) {
        fail("n_fft", "windows that cover " + std::to_string(c.n_signal()) + " samples",
             std::to_string(covered));
    }
    return c;
}

struct SileroNetwork {
    SileroNetwork(Weights w, const SileroConfig& c)
        : stft(w / "stft", c.n_fft, int64_t{2} * c.n_bins, false),
          conv0(w / "encoder" / 0, c.n_bins, c.channels[0], 3, 1),
          conv1(w / "encoder" / 1, c.channels[0], c.channels[1], 3, 2),
          conv2(w / "encoder" / 2, int64_t{2} * c.channels[1], c.channels[2]),
          conv3(w / "encoder" / 3, c.channels[2], c.channels[3]),
          lstm(w / "lstm", c.channels[3], c.n_hidden),
          output(w / "output", c.n_hidden, 1) {}

    /// windows [n_fft, kSteps·F] → [channels[3], F]
    ggml_tensor* encode(Graph& graph, ggml_tensor* windows) const;

    Linear stft;
    Conv1d conv0, conv1;
    Linear conv2, conv3;  // of the taps that never meet padding alone
    LstmSequence lstm;
    Linear output;
};

ggml_tensor* magnitude(Graph& graph, ggml_tensor* spectrum) {  // [2·n_bins, m] → [n_bins, m]
    ggml_context* ctx = graph.ctx();
    ggml_tensor* squares = ggml_sqr(ctx, spectrum);
    const auto half = [&](int64_t i) {
        const int64_t n = squares->ne[0] / 2;
        return ggml_view_2d(ctx, squares, n, squares->ne[1], squares->nb[1],
                            static_cast<size_t>(i * n) * squares->nb[0]);
    };
    return ggml_sqrt(ctx, ggml_add(ctx, half(0), half(1)));
}

ggml_tensor* SileroNetwork::encode(Graph& graph, ggml_tensor* windows) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n_frames = windows->ne[1] / kSteps;
    ggml_tensor* x = magnitude(graph, stft(graph, windows));
    x = ggml_reshape_3d(ctx, x, x->ne[0], kSteps, n_frames);
    x = conv0(graph, ggml_pad_ext(ctx, x, 0, 0, 1, 1, 0, 0, 0, 0), Activation::Relu);
    x = conv1(graph, ggml_pad_ext(ctx, x, 0, 0, 1, 0, 0, 0, 0, 0), Activation::Relu);
    x = conv2(graph, ggml_reshape_2d(ctx, x, 2 * x->ne[0], n_frames), Activation::Relu);
    return conv3(graph, x, Activation::Relu);
}

class SileroModel : public Model {
   public:
    explicit SileroModel(std::unique_ptr<WeightStore> store)
        : Model(std::move(store)),
          config(SileroConfig::read(store_->file())),
          network(store_->root() / "vad", config) {}
    std::unique_ptr<Session> session() const override;

    const SileroConfig config;
    const SileroNetwork network;
};

/// The graph of so many frames.
struct Pass {
    Pass(Backend& backend, const SileroModel& model, int64_t n_frames);
    int64_t n_frames;
    Graph graph;
    ggml_tensor* windows;        // [n_fft, kSteps·F]
    ggml_tensor* state;          // [2·n_hidden]: h, then c, before the first frame
    ggml_tensor* last_state;     // the same after the last one
    ggml_tensor* probabilities;  // [1, F]
};

Pass::Pass(Backend& backend, const SileroModel& model, int64_t n_frames)
    : n_frames(n_frames), graph(backend, 128 + 16 * static_cast<size_t>(n_frames), kernels::Precision::F32) {
    const SileroConfig& c = model.config;
    const SileroNetwork& network = model.network;
    ggml_context* ctx = graph.ctx();
    windows = graph.input(GGML_TYPE_F32, {c.n_fft, kSteps * n_frames});
    state = graph.input(GGML_TYPE_F32, {int64_t{2} * c.n_hidden});
    ggml_tensor* states = network.lstm(graph, network.encode(graph, windows), state);
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
        : Session(device, model->threads()), model_(std::move(model)), place_(start()) {}

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
    /// The windows of the next frames; behind the samples lie zeros.
    void cut(const float* pcm, int64_t n_samples, int64_t n_frames, Place& place);

    std::shared_ptr<const SileroModel> model_;
    Place place_;
    std::vector<float> signal_, windows_;
    /// The graph of kMostFrames, and that of the last smaller number.
    std::unique_ptr<Pass> most_, fewer_;
};

SileroSession::Place SileroSession::start() const {
    const SileroConfig& c = model_->config;
    return {std::vector<float>(static_cast<size_t>(c.context)),
            std::vector<float>(static_cast<size_t>(c.n_hidden) * 2)};
}

Pass& SileroSession::pass_for(int64_t n_frames) {
    std::unique_ptr<Pass>& pass = n_frames == kMostFrames ? most_ : fewer_;
    if (!pass || pass->n_frames != n_frames) pass = std::make_unique<Pass>(backend_, *model_, n_frames);
    return *pass;
}

void SileroSession::cut(const float* pcm, int64_t n_samples, int64_t n_frames, Place& place) {
    const SileroConfig& c = model_->config;
    signal_.resize(static_cast<size_t>(c.n_signal()));
    windows_.resize(static_cast<size_t>(n_frames * kSteps * c.n_fft));
    const auto frame = signal_.begin() + c.context, end = frame + c.window;
    auto window = windows_.begin();
    for (int64_t first = 0; first < n_frames * c.window; first += c.window) {
        std::copy(place.context.begin(), place.context.end(), signal_.begin());
        const int64_t n = std::clamp<int64_t>(n_samples - first, 0, c.window);
        std::fill(std::copy_n(pcm + first, n, frame), end, 0.0f);
        for (int i = 0; i < c.padding; ++i) end[i] = end[-2 - i];  // without the edge itself
        std::copy(end - c.context, end, place.context.begin());
        for (int step = 0; step < kSteps; ++step)
            window = std::copy_n(signal_.begin() + step * c.hop_length, c.n_fft, window);
    }
}

std::vector<float> SileroSession::speech_probabilities(const float* pcm, int64_t n_samples) {
    const int64_t size = model_->config.window, n_frames = (n_samples + size - 1) / size;
    std::vector<float> probabilities(static_cast<size_t>(n_frames));
    Place place = place_;
    for (int64_t done = 0; done < n_frames;) {
        Pass& pass = pass_for(std::min(kMostFrames, n_frames - done));
        cut(pcm + done * size, n_samples - done * size, pass.n_frames, place);
        write(pass.windows, windows_.data());
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
