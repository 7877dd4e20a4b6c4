// PyanNet (Bredin & Laurent 2021, arXiv:2104.04045), the network of pyannote's segmentation-3.0: who of up to
// three speakers talks in each frame of a window, as classes of one or several speakers (Plaquet & Bredin
// 2023, arXiv:2310.13025). Follows pyannote/audio/models/segmentation/PyanNet.py and blocks/sincnet.py
// (pyannote.audio 3.1). Sizes of the published network, windows of 10 s:
//
//   samples, less their mean, over their deviation               [160000, B]
//     as rows of one stride of the filters                       [10, 16000, B]
//   sinc         80 band-pass filters of 251, stride 10, |x|     [80, 15975, B]
//     pool       greatest of 3, norm over time, leaky ReLU       [80, 5325, B]
//   conv1        k5                                              [64, 5321, B]   60 channels, the rest zeros
//     pool                                                       [64, 1773, B]
//   conv2        k5                                              [64, 1769, B]   60 channels
//     pool                                                       [64, 589, B]    a frame every 270 samples
//   lstm.0 to 3  from both ends                                  [256, 589, B]
//   linear.0, 1  leaky ReLU                                      [128, 589, B]
//   output       log-softmax                                     [7, 589, B]
//
// Convolutions see no padding: of ours, which pads, the outer places are left out.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/last_pass.h"
#include "kernels/elementwise.h"
#include "kernels/pooled_norm.h"
#include "models/model.h"
#include "nn/convolution.h"
#include "nn/layers.h"
#include "nn/lstm.h"
#include "nn/residual.h"

namespace rustasr {
namespace {

constexpr int kPool = 3;              // frames: SincNet.__init__
constexpr int kConvTaps = 5;          // SincNet.__init__
constexpr double kEpsilon = 1e-5;     // torch.nn.InstanceNorm1d's default
constexpr float kLeakySlope = 0.01F;  // torch.nn.functional.leaky_relu's default

struct PyannetConfig {
    int window;         // samples
    int stride;         // samples between two places of a filter
    int filter_length;  // samples
    int n_filters, n_channels;
    int n_hidden, n_layers;  // of the LSTM
    int n_linear, n_classes;

    /// Throws ModelFileError that names the key.
    static PyannetConfig read(const GgufFile& file);
    int rows() const { return window / stride; }
    /// Rows of `stride` samples that hold a filter, an odd number.
    int filter_rows() const { return (filter_length + stride - 1) / stride / 2 * 2 + 1; }
    int filter_places() const { return (window - filter_length) / stride + 1; }
    int n_frames() const;
};

// What a convolution and the pool behind it leave of n places.
int pooled(int n, int taps) { return (n - taps + 1) / kPool; }

int PyannetConfig::n_frames() const {
    return pooled(pooled(pooled(filter_places(), 1), kConvTaps), kConvTaps);
}

PyannetConfig PyannetConfig::read(const GgufFile& file) {
    const auto size = [&](const char* name, uint32_t min, uint32_t max) {
        return static_cast<int>(file.u32(std::string("pyannet.") + name, min, max));
    };
    PyannetConfig c{};
    c.window = size("window", 1, 1 << 22);
    c.stride = size("stride", 1, 256);
    c.filter_length = size("filter_length", 1, 4096);
    c.n_filters = size("filters", 1, 1024);
    c.n_channels = size("channels", 1, 1024);
    c.n_hidden = size("n_hidden", 1, 4096);
    c.n_layers = size("lstm_layers", 1, 16);
    c.n_linear = size("n_linear", 1, 4096);
    c.n_classes = static_cast<int>(file.i32_array("pyannet.speakers_of_class").size());
    const auto fail = [&](const char* key, const std::string& expected, int found) {
        throw ModelFileError(file.path() + ": key pyannet." + key + ": expected " + expected + ", found " +
                             std::to_string(found));
    };
    file.u32("pyannet.sample_rate", 16000, 16000);
    if (c.n_classes < 1 || c.n_classes > 256) fail("speakers_of_class", "1 to 256 classes", c.n_classes);
    if (c.window % c.stride != 0) fail("window", "a multiple of pyannet.stride", c.window);
    constexpr int kMostRows = 31;  // of kernels::exact_convolution
    if (c.filter_rows() > kMostRows)
        fail("filter_length", "at most 30 times pyannet.stride", c.filter_length);
    if (c.filter_length > c.window || c.n_frames() < 1)
        fail("window", "samples for a frame or more", c.window);
    return c;
}

/// The greatest of three places each, the norm of each channel over time, leaky ReLU.
class PooledNorm {
   public:
    PooledNorm(Weights weights, int64_t n)
        : weight_(weights.get_f32("weight", {n})), bias_(weights.get_f32("bias", {n})) {}
    /// x [C, T, 1, B] → [C, T/3, 1, B]; `absolute`: of |x|. x may be a view of rows.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, bool absolute) const;

   private:
    ggml_tensor *weight_, *bias_;  // [C]
};

ggml_tensor* PooledNorm::operator()(Graph& graph, ggml_tensor* x, bool absolute) const {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels())
        return kernels::pooled_norm(ctx, x, {weight_, bias_, kEpsilon, kLeakySlope, kPool, absolute});
    ggml_tensor* greatest = nullptr;
    for (int i = 0; i < kPool; ++i) {
        ggml_tensor* part = ggml_cont(ctx, ggml_view_2d(ctx, x, x->ne[0], x->ne[1] / kPool, kPool * x->nb[1],
                                                        static_cast<size_t>(i) * x->nb[1]));
        if (absolute) part = ggml_abs(ctx, part);
        // The greater of two: the one, and what the other has more.
        greatest = greatest ? ggml_add(ctx, greatest, ggml_relu(ctx, ggml_sub(ctx, part, greatest))) : part;
    }
    ggml_tensor* by_channel = ggml_cont(ctx, ggml_transpose(ctx, greatest));  // [T/3, C]
    by_channel = ggml_norm(ctx, by_channel, static_cast<float>(kEpsilon));
    ggml_tensor* y = ggml_cont(ctx, ggml_transpose(ctx, by_channel));
    return ggml_leaky_relu(ctx, ggml_add(ctx, ggml_mul(ctx, y, weight_), bias_), kLeakySlope, false);
}

struct PyannetNetwork {
    PyannetNetwork(Weights w, const PyannetConfig& c)
        : config(c),
          sinc(w / "sinc", {c.stride, c.n_filters, 1, c.filter_rows()}, false),
          conv1(w / "conv1", {c.n_filters, c.n_channels, 1, kConvTaps}),
          conv2(w / "conv2", {c.n_channels, c.n_channels, 1, kConvTaps}),
          norms{{w / "sinc" / "norm", c.n_filters},
                {w / "conv1" / "norm", c.n_channels},
                {w / "conv2" / "norm", c.n_channels}},
          linear0(w / "linear" / 0, int64_t{2} * c.n_hidden, c.n_linear),
          linear1(w / "linear" / 1, c.n_linear, c.n_linear),
          output(w / "output", c.n_linear, c.n_classes) {
        for (int i = 0; i < c.n_layers; ++i)
            lstm.emplace_back(w / "lstm" / i, i == 0 ? c.n_channels : 2 * c.n_hidden, c.n_hidden);
    }

    /// rows [stride, rows, B] → logits [n_classes, n_frames, B]. Taps the stages.
    ggml_tensor* classify(Graph& graph, ggml_tensor* rows) const;
    /// One window: rows [stride, rows] → [n_channels, n_frames].
    ggml_tensor* front(Graph& graph, ggml_tensor* rows) const;

    const PyannetConfig& config;
    ExactConv2d sinc, conv1, conv2;
    PooledNorm norms[3];
    std::vector<BidirectionalLstm> lstm;
    Linear linear0, linear1, output;
};

// The places of a convolution [C, 1, T] that see no padding: [C, n].
ggml_tensor* inside(ggml_context* ctx, ggml_tensor* y, int first, int n) {
    return ggml_view_2d(ctx, y, y->ne[0], n, y->nb[2], static_cast<size_t>(first) * y->nb[2]);
}

ggml_tensor* as_places(ggml_context* ctx, ggml_tensor* x) {
    return ggml_reshape_3d(ctx, x, x->ne[0], 1, x->ne[1]);
}

ggml_tensor* PyannetNetwork::front(Graph& graph, ggml_tensor* rows) const {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* y = sinc(graph, as_places(ctx, rows), Activation::None);
    // A filter that begins with a row lies in the middle of its odd number of rows.
    y = inside(ctx, y, config.filter_rows() / 2, config.filter_places());
    ggml_tensor* x = graph.tap("sinc", norms[0](graph, y, true));
    int norm = 1;
    for (const auto& [conv, name] : {std::pair{&conv1, "conv1"}, {&conv2, "conv2"}}) {
        const int n = static_cast<int>(x->ne[1]) - kConvTaps + 1;
        y = (*conv)(graph, as_places(ctx, x), Activation::None);
        x = graph.tap(name, norms[norm++](graph, inside(ctx, y, kConvTaps / 2, n), false));
    }
    return x;
}

ggml_tensor* PyannetNetwork::classify(Graph& graph, ggml_tensor* rows) const {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* x = piece_by_piece(graph, rows, [&](ggml_tensor* window) { return front(graph, window); });
    for (const BidirectionalLstm& layer : lstm) x = layer(graph, x);
    graph.tap("lstm", x);
    x = ggml_leaky_relu(ctx, linear0(graph, x), kLeakySlope, true);
    x = graph.tap("linear", ggml_leaky_relu(ctx, linear1(graph, x), kLeakySlope, true));
    return graph.tap("output", output(graph, x));
}

class PyannetModel : public Model {
   public:
    explicit PyannetModel(std::unique_ptr<WeightStore> store)
        : Model(std::move(store)),
          config(PyannetConfig::read(store_->file())),
          network(store_->root() / "pyannet", config),
          scale(*(store_->root() / "pyannet" / "norm").host_f32("weight", {1})),
          shift(*(store_->root() / "pyannet" / "norm").host_f32("bias", {1})) {}
    std::unique_ptr<Session> session() const override;

    const PyannetConfig config;
    const PyannetNetwork network;
    const float scale, shift;  // of the samples' norm
};

/// Which graph: of so many windows.
struct PassShape {
    int64_t batch;
    std::vector<std::string> taps;

    bool operator==(const PassShape& o) const { return batch == o.batch && taps == o.taps; }
};

struct Pass {
    Pass(Backend& backend, const PyannetModel& model, const PassShape& shape, GraphMemory memory);
    Graph graph;
    ggml_tensor* rows;    // [stride, rows, B]
    ggml_tensor* output;  // [n_classes, n_frames, B]
};

// Without our kernels each step of an LSTM is some twenty operations, from either end.
size_t most_nodes(const Backend& backend, const PyannetConfig& c, int64_t batch) {
    const size_t windows = 1024 + static_cast<size_t>(512 * batch);
    if (backend.on_cpu() && kernels::elementwise_supported()) return windows;
    return windows + 48 * static_cast<size_t>(c.n_layers * c.n_frames());
}

Pass::Pass(Backend& backend, const PyannetModel& model, const PassShape& shape, GraphMemory memory)
    : graph(backend, most_nodes(backend, model.config, shape.batch), kernels::Precision::F32, shape.taps,
            std::move(memory)),
      rows(graph.input(GGML_TYPE_F32, {model.config.stride, model.config.rows(), shape.batch})),
      output(model.network.classify(graph, rows)) {
    graph.output(output);
    graph.finish();
}

class PyannetSession : public Session {
   public:
    PyannetSession(std::shared_ptr<const PyannetModel> model, ggml_backend_dev_t device)
        : Session(device, model->threads()), model_(std::move(model)) {}

    Matrix speaker_classes(const std::vector<SamplesView>& windows) override;
    std::map<std::string, Matrix> encode_taps(const std::vector<MatrixView>& windows,
                                              const std::vector<std::string>& names) override;

   private:
    /// The pass of these windows, which has run.
    const Pass& run(const SamplesView* windows, int64_t batch, std::vector<std::string> taps);

    std::shared_ptr<const PyannetModel> model_;
    LastPass<PassShape, Pass> pass_;
};

/// The samples less their mean, over their deviation, times scale plus shift.
void normalise(const SamplesView& window, float scale, float shift, float* to) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < window.n; ++i) sum += double(window.values[i]);
    const double mean = sum / static_cast<double>(window.n);
    for (int64_t i = 0; i < window.n; ++i) {
        const double off = double(window.values[i]) - mean;
        square += off * off;
    }
    const double factor = double(scale) / std::sqrt(square / static_cast<double>(window.n) + kEpsilon);
    for (int64_t i = 0; i < window.n; ++i)
        to[i] = static_cast<float>((double(window.values[i]) - mean) * factor + double(shift));
}

void log_softmax(float* x, int64_t n) {
    const double most = double(*std::max_element(x, x + n));
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(double(x[i]) - most);
    const double whole = most + std::log(sum);
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(double(x[i]) - whole);
}

const Pass& PyannetSession::run(const SamplesView* windows, int64_t batch, std::vector<std::string> taps) {
    const PassShape shape{batch, std::move(taps)};
    Pass& pass = pass_.of(shape, [&](GraphMemory memory) {
        return std::make_unique<Pass>(backend_, *model_, shape, std::move(memory));
    });
    const int64_t size = model_->config.window;
    std::vector<float> samples(static_cast<size_t>(batch * size));
    backend_.parallel([&](int ith, int nth) {
        for (int64_t b = ith; b < batch; b += nth)
            normalise(windows[b], model_->scale, model_->shift, &samples[static_cast<size_t>(b * size)]);
    });
    write(pass.rows, samples.data());
    pass.graph.run();
    return pass;
}

Matrix PyannetSession::speaker_classes(const std::vector<SamplesView>& windows) {
    const PyannetConfig& c = model_->config;
    for (const SamplesView& window : windows) {
        if (window.n == c.window) continue;
        throw OptionError("windows: expected " + std::to_string(c.window) + " samples in each, found " +
                          std::to_string(window.n));
    }
    const auto n_windows = static_cast<int64_t>(windows.size()), n_frames = int64_t{c.n_frames()};
    Matrix result{n_windows * n_frames, c.n_classes,
                  std::vector<float>(static_cast<size_t>(n_windows * n_frames * c.n_classes))};
    const int64_t most = backend_.on_cpu() ? 8 : 32;  // what keeps the device busy
    for (int64_t first = 0; first < n_windows; first += most) {
        const int64_t batch = std::min(most, n_windows - first);
        const Pass& pass = run(&windows[static_cast<size_t>(first)], batch, {});
        read(pass.output, &result.values[static_cast<size_t>(first * n_frames * c.n_classes)]);
    }
    for (int64_t row = 0; row < result.rows; ++row)
        log_softmax(&result.values[static_cast<size_t>(row * c.n_classes)], c.n_classes);
    return result;
}

std::map<std::string, Matrix> PyannetSession::encode_taps(const std::vector<MatrixView>& windows,
                                                          const std::vector<std::string>& names) {
    // The front end is built window by window: its taps are those of one.
    const bool one = windows.size() == 1 && windows[0].rows * windows[0].columns == model_->config.window;
    if (!one)
        throw OptionError("windows: expected one of " + std::to_string(model_->config.window) + " samples");
    const SamplesView samples{windows[0].values, model_->config.window};
    return collect_taps(run(&samples, 1, names).graph, names);
}

std::unique_ptr<Session> PyannetModel::session() const {
    auto self = std::static_pointer_cast<const PyannetModel>(shared_from_this());
    return std::make_unique<PyannetSession>(std::move(self), store_->device());
}

}  // namespace

std::unique_ptr<Model> make_pyannet(std::unique_ptr<WeightStore> store) {
    return std::make_unique<PyannetModel>(std::move(store));
}

}  // namespace rustasr
