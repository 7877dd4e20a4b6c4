#include "models/conformer_session.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/last_pass.h"
#include "decode/ctc.h"
#include "decode/transducer.h"
#include "kernels/elementwise.h"
#include "nn/distance_keys.h"

namespace rustasr {
namespace {

/// The frames as the search sees them, on the device.
class ConformerEncoded : public Encoded {
   public:
    ConformerEncoded(const Backend& backend, int64_t n, std::vector<int> lengths) {
        const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
        context_.reset(ggml_init({ggml_tensor_overhead(), nullptr, true}));
        frames.values = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F32, n, longest,
                                           static_cast<int64_t>(lengths.size()));
        frames.lengths = std::move(lengths);
        buffer_ = backend.allocate(context_.get(), "the encoded audio");
    }
    int batch() const override { return static_cast<int>(frames.lengths.size()); }
    std::vector<int> lengths() const override { return frames.lengths; }

    EncodedFrames frames;

   private:
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;
};

/// Which graph: a batch whose longest window has n_mel_frames.
struct PassShape {
    int64_t n_mel_frames;
    int64_t batch;
    bool ragged;  // some windows are shorter
    std::vector<std::string> taps;

    auto key() const { return std::tie(n_mel_frames, batch, ragged, taps); }
    bool operator==(const PassShape& other) const { return key() == other.key(); }
};

struct Pass {
    Pass(Backend& backend, size_t max_nodes, kernels::Precision precision, std::vector<std::string> taps,
         GraphMemory memory)
        : graph(backend, max_nodes, precision, std::move(taps), std::move(memory)) {}
    Graph graph;
    ggml_tensor* mel = nullptr;  // [n_mels, padding + T_mel + padding, B]
    ConformerBatch batch;
    ggml_tensor* output = nullptr;  // [n, T·B]
};

/// Quantised weights gave up more than attention in BF16 does: Q8_0 moves the encoder's output by 0.6 % (the
/// GigaAM of the tests) and 0.9 % (their Parakeet) with either, BF16 in an F32 model by 0.05 and 0.1 %.
kernels::Precision precision_for(ggml_type weights) {
    return ggml_is_quantized(weights) ? kernels::Precision::Fast : kernels::Precision::F32;
}

void log_softmax_rows(std::vector<float>& rows, int64_t n) {
    for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(n)) {
        float* row = &rows[at];
        const float normalizer = kernels::log_sum_exp(row, n);
        for (int64_t i = 0; i < n; ++i) row[i] -= normalizer;
    }
}

class ConformerSession : public Session {
   public:
    ConformerSession(std::shared_ptr<const ConformerModel> model, ggml_backend_dev_t device)
        : Session(device, model->threads(), model->frontend),
          model_(std::move(model)),
          config_(model_->config) {
        if (config_.attention == AttentionKind::RelativePosition) {
            const bool exact = model_->weight_type() == GGML_TYPE_F32;
            distances_.emplace(backend_, model_->encoder, config_, exact ? GGML_TYPE_F32 : GGML_TYPE_F16);
        }
        if (model_->head.transducer()) transducer_.emplace(backend_, *model_->head.transducer());
    }

    std::shared_ptr<Encoded> encode(const std::vector<MatrixView>& features) override;
    std::map<std::string, Matrix> encode_taps(const std::vector<MatrixView>& features,
                                              const std::vector<std::string>& names) override;
    std::vector<Recognized> recognize(Encoded& encoded, const std::vector<int>& utterances,
                                      const SearchOptions& options) override;
    std::map<std::string, Matrix> decode_taps(Encoded& encoded, int utterance,
                                              const std::vector<int32_t>& tokens,
                                              const std::vector<std::string>& names) override;

   private:
    void check_features(const std::vector<MatrixView>& features) const;
    /// Encoder frames of each window.
    std::vector<int> lengths_of(const std::vector<MatrixView>& features) const;
    std::unique_ptr<Pass> build(const PassShape& shape, GraphMemory memory);
    /// The pass of these windows, which has run.
    const Pass& run(const std::vector<MatrixView>& windows, std::vector<std::string> taps);
    /// Windows that are encoded in one pass: neighbours in length, so that little is padding.
    std::vector<std::vector<size_t>> plan(const std::vector<MatrixView>& features) const;

    std::shared_ptr<const ConformerModel> model_;
    const ConformerConfig& config_;
    std::optional<DistanceKeys> distances_;
    std::optional<Transducer> transducer_;  // none: CTC
    LastPass<PassShape, Pass> pass_;
};

void ConformerSession::check_features(const std::vector<MatrixView>& features) const {
    if (features.empty()) throw OptionError("features: expected at least one window, found none");
    for (const MatrixView& window : features) {
        if (window.columns == config_.n_mels && window.rows >= 1) continue;
        throw OptionError("features: expected 1 or more frames of " + std::to_string(config_.n_mels) +
                          " mels, found " + std::to_string(window.rows) + " of " +
                          std::to_string(window.columns));
    }
}

std::vector<int> ConformerSession::lengths_of(const std::vector<MatrixView>& features) const {
    std::vector<int> lengths;
    for (const MatrixView& window : features)
        lengths.push_back(static_cast<int>(config_.n_frames(window.rows)));
    return lengths;
}

PassShape shape_of(const ConformerConfig& config, const std::vector<MatrixView>& windows,
                   std::vector<std::string> taps) {
    // Attention has forms for few queries that round differently: no window is so short by itself that it
    // would come out otherwise than beside a longer one.
    constexpr int64_t kLeastFrames = 16;
    PassShape shape{kLeastFrames * config.subsampling_factor, static_cast<int64_t>(windows.size()), false,
                    std::move(taps)};
    for (const MatrixView& window : windows) shape.n_mel_frames = std::max(shape.n_mel_frames, window.rows);
    for (const MatrixView& window : windows) shape.ragged |= window.rows < shape.n_mel_frames;
    return shape;
}

std::unique_ptr<Pass> ConformerSession::build(const PassShape& shape, GraphMemory memory) {
    const size_t max_nodes = 512 + 96 * static_cast<size_t>(config_.n_layer);
    auto pass = std::make_unique<Pass>(backend_, max_nodes, precision_for(model_->weight_type()), shape.taps,
                                       std::move(memory));
    Graph& graph = pass->graph;
    ConformerBatch& batch = pass->batch;
    const int64_t padding = model_->encoder.subsampling().padding();
    pass->mel = graph.input(GGML_TYPE_F32, {config_.n_mels, shape.n_mel_frames + 2 * padding, shape.batch});
    batch.n_frames = config_.n_frames(shape.n_mel_frames);
    batch.batch = shape.batch;
    batch.masks.resize(static_cast<size_t>(config_.n_stages()) + 1);
    int64_t n_frames = shape.n_mel_frames;
    for (size_t stage = 1; shape.ragged && stage < batch.masks.size(); ++stage) {
        n_frames = halved(n_frames);
        batch.masks[stage] = FrameMask(graph, n_frames, shape.batch);
    }
    if (distances_) {
        batch.distances = distances_->of(graph, batch.n_frames);
    } else {
        batch.positions = graph.input(GGML_TYPE_I32, {batch.n_frames * shape.batch});
    }
    ggml_tensor* frames = model_->encoder(graph, pass->mel, batch);
    pass->output = model_->head(graph, frames);
    graph.tap(transducer_ ? "projected" : "logits", pass->output);
    graph.output(pass->output);
    graph.finish();
    return pass;
}

const Pass& ConformerSession::run(const std::vector<MatrixView>& windows, std::vector<std::string> taps) {
    const PassShape shape = shape_of(config_, windows, std::move(taps));
    Pass& pass = pass_.of(shape, [&](GraphMemory memory) { return build(shape, std::move(memory)); });
    const auto n_mels = static_cast<size_t>(config_.n_mels);
    const auto padding = static_cast<size_t>(model_->encoder.subsampling().padding());
    const auto n_rows = static_cast<size_t>(pass.mel->ne[1]);
    std::vector<float> mel(n_mels * n_rows * windows.size(), 0.0f);
    std::vector<int> lengths;
    for (size_t b = 0; b < windows.size(); ++b) {
        std::copy_n(windows[b].values, windows[b].rows * windows[b].columns,
                    &mel[(b * n_rows + padding) * n_mels]);
        lengths.push_back(static_cast<int>(windows[b].rows));
    }
    write(pass.mel, mel.data());
    for (size_t stage = 1; stage < pass.batch.masks.size(); ++stage) {
        for (int& length : lengths) length = static_cast<int>(halved(length));
        pass.batch.masks[stage].set(lengths);
    }
    if (pass.batch.positions) {
        std::vector<int32_t> positions;
        for (int64_t i = 0; i < pass.batch.positions->ne[0]; ++i)
            positions.push_back(static_cast<int32_t>(i % pass.batch.n_frames));
        write(pass.batch.positions, positions.data());
    }
    pass.graph.run();
    return pass;
}

std::vector<std::vector<size_t>> ConformerSession::plan(const std::vector<MatrixView>& features) const {
    // Encoder frames that keep the device busy; more at once would only need more memory.
    const int64_t most = backend_.on_cpu() ? 256 : 8192;
    std::vector<size_t> order(features.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return features[a].rows > features[b].rows; });
    std::vector<std::vector<size_t>> passes;
    int64_t longest = 0;  // of the pass, in encoder frames
    for (size_t i : order) {
        if (passes.empty() || longest * static_cast<int64_t>(passes.back().size() + 1) > most) {
            passes.emplace_back();
            longest = config_.n_frames(features[i].rows);
        }
        passes.back().push_back(i);
    }
    return passes;
}

std::shared_ptr<Encoded> ConformerSession::encode(const std::vector<MatrixView>& features) {
    check_features(features);
    const std::vector<int> lengths = lengths_of(features);
    auto encoded = std::make_shared<ConformerEncoded>(backend_, model_->head.width(), lengths);
    std::vector<float> rows;
    for (const std::vector<size_t>& members : plan(features)) {
        std::vector<MatrixView> windows;
        for (size_t i : members) windows.push_back(features[i]);
        const Pass& pass = run(windows, {});
        ggml_tensor* to = encoded->frames.values;
        for (size_t b = 0; b < members.size(); ++b) {
            rows.resize(static_cast<size_t>(to->ne[0]) * static_cast<size_t>(lengths[members[b]]));
            ggml_backend_tensor_get(pass.output, rows.data(),
                                    b * static_cast<size_t>(pass.batch.n_frames) * pass.output->nb[1],
                                    rows.size() * sizeof(float));
            if (!transducer_) log_softmax_rows(rows, to->ne[0]);
            ggml_backend_tensor_set(to, rows.data(), members[b] * to->nb[2], rows.size() * sizeof(float));
        }
    }
    return encoded;
}

// Rows of B windows of n_frames each, without what lies behind the lengths.
Matrix without_padding(const Matrix& padded, const std::vector<int>& lengths) {
    const auto columns = static_cast<size_t>(padded.columns), window = padded.values.size() / lengths.size();
    Matrix rows{0, padded.columns, {}};
    for (size_t b = 0; b < lengths.size(); ++b) {
        const auto begin = padded.values.begin() + static_cast<std::ptrdiff_t>(b * window);
        const size_t n = static_cast<size_t>(lengths[b]) * columns;
        rows.values.insert(rows.values.end(), begin, begin + static_cast<std::ptrdiff_t>(n));
        rows.rows += lengths[b];
    }
    return rows;
}

std::map<std::string, Matrix> ConformerSession::encode_taps(const std::vector<MatrixView>& features,
                                                            const std::vector<std::string>& names) {
    check_features(features);
    std::map<std::string, Matrix> taps = collect_taps(run(features, names).graph, names);
    for (auto& [name, tap] : taps) tap = without_padding(tap, lengths_of(features));
    if (const auto logits = taps.find("logits"); logits != taps.end())
        log_softmax_rows(logits->second.values, logits->second.columns);
    return taps;
}

const EncodedFrames& frames_of(const Encoded& encoded) {
    return dynamic_cast<const ConformerEncoded&>(encoded).frames;
}

std::vector<Recognized> ConformerSession::recognize(Encoded& encoded, const std::vector<int>& utterances,
                                                    const SearchOptions& options) {
    const EncodedFrames& frames = frames_of(encoded);
    return transducer_ ? transducer_->recognize(frames, utterances, options)
                       : ctc_search(frames, utterances, options);
}

/// "prediction": joint.pred at the start and after each token. "joint": logits of each frame at the start.
std::map<std::string, Matrix> ConformerSession::decode_taps(Encoded& encoded, int utterance,
                                                            const std::vector<int32_t>& tokens,
                                                            const std::vector<std::string>& names) {
    if (!transducer_) return Session::decode_taps(encoded, utterance, tokens, names);
    TransducerNetwork& network = transducer_->network();
    const TransducerConfig& config = network.config();
    const EncodedFrames& frames = frames_of(encoded);
    frames.check({utterance});
    for (int32_t token : tokens) {
        if (token >= 0 && token < config.n_vocab) continue;
        throw OptionError("tokens: expected ids below " + std::to_string(config.n_vocab) + ", found " +
                          std::to_string(token));
    }
    std::map<std::string, Matrix> taps;
    for (const std::string& name : names) {
        Matrix& tap = taps[name];
        PredictionPtr prediction = network.start();
        if (name == "prediction") {
            tap = {static_cast<int64_t>(tokens.size()) + 1, config.joint_hidden, prediction->output};
            for (int32_t token : tokens) {
                prediction = network.predict({{prediction.get(), token}}).front();
                tap.values.insert(tap.values.end(), prediction->output.begin(), prediction->output.end());
            }
        } else if (name == "joint") {
            tap = {frames.lengths[static_cast<size_t>(utterance)], config.n_classes(), {}};
            const std::vector<float> rows = frames.read(utterance);
            for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(config.joint_hidden)) {
                const float* logits = network.joint({{&rows[at], prediction->output.data()}});
                tap.values.insert(tap.values.end(), logits, logits + config.n_classes());
            }
        } else {
            throw OptionError("no intermediate named \"" + name + "\"");
        }
    }
    return taps;
}

}  // namespace

ConformerHead::ConformerHead(Weights root, const GgufFile& file, int d_model) {
    if (file.str("head.type") != "ctc") {
        transducer_.emplace(root, TransducerConfig::read(file, d_model));
        width_ = transducer_->config.joint_hidden;
        return;
    }
    const uint32_t n_vocab = file.u32("head.n_vocab", 1, 1 << 20);
    file.u32("head.blank_id", n_vocab, n_vocab);
    width_ = static_cast<int>(n_vocab) + 1;
    ctc_.emplace(root / "head", d_model, width_);
}

ggml_tensor* ConformerHead::operator()(Graph& graph, ggml_tensor* frames) const {
    if (transducer_) return transducer_->project(graph, frames);
    GGML_ASSERT(ctc_.has_value());
    return (*ctc_)(graph, frames);
}

ConformerModel::ConformerModel(std::unique_ptr<WeightStore> store, const ConformerConfig& config)
    : Model(std::move(store)),
      config(config),
      frontend(store_->root() / "frontend", store_->file()),
      encoder(store_->root() / "encoder", config),
      head(store_->root(), store_->file(), config.d_model) {}

std::unique_ptr<Session> ConformerModel::session() const {
    auto self = std::static_pointer_cast<const ConformerModel>(shared_from_this());
    return std::make_unique<ConformerSession>(std::move(self), store_->device());
}

}  // namespace rustasr
