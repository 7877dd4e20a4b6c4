#include "models/speaker_session.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "core/error.h"

namespace rustasr {
namespace {

/// The graph of so many pieces of so many frames.
struct Pass {
    Pass(Backend& backend, int64_t n_frames, int64_t batch, size_t max_nodes, std::vector<std::string> taps,
         ggml_backend_sched_ptr memory)
        : n_frames(n_frames),
          batch(batch),
          graph(backend, max_nodes, kernels::Precision::F32, std::move(taps), std::move(memory)) {}
    int64_t n_frames, batch;
    Graph graph;
    ggml_tensor* features = nullptr;  // [n_mels, T, B]
    ggml_tensor* output = nullptr;    // [n_dims, B]
};

class SpeakerSession : public Session {
   public:
    SpeakerSession(std::shared_ptr<const SpeakerModel> model, ggml_backend_dev_t device)
        : Session(device, model->threads(), model->frontend), model_(std::move(model)) {}

    Matrix speaker_embeddings(const std::vector<SamplesView>& pieces) override;
    std::map<std::string, Matrix> encode_taps(const std::vector<MatrixView>& features,
                                              const std::vector<std::string>& names) override;

   private:
    /// Normalised features of each piece.
    std::vector<Matrix> features_of(const std::vector<SamplesView>& pieces);
    std::unique_ptr<Pass> build(int64_t n_frames, int64_t batch, std::vector<std::string> taps);

    std::shared_ptr<const SpeakerModel> model_;
    std::unique_ptr<Pass> pass_;  // of the last shape; another one takes its memory
};

/// The samples, from the start again and again until there are `least`: 3D-Speaker's circle_pad
/// (speakerlab/utils/utils.py).
std::vector<float> repeated(const SamplesView& piece, int64_t least) {
    std::vector<float> samples(piece.values, piece.values + piece.n);
    samples.resize(static_cast<size_t>(std::max(piece.n, least)));
    for (auto i = static_cast<size_t>(piece.n); i < samples.size(); ++i)
        samples[i] = samples[i - static_cast<size_t>(piece.n)];
    return samples;
}

std::vector<Matrix> SpeakerSession::features_of(const std::vector<SamplesView>& pieces) {
    const MelFrontend& frontend = model_->frontend;
    const int64_t n_mels = frontend.config().n_mels;
    std::vector<std::vector<float>> samples;
    std::vector<Matrix> features;
    for (const SamplesView& piece : pieces) {
        if (piece.n < 1) throw OptionError("pieces: expected at least one sample in each, found none");
        samples.push_back(repeated(piece, model_->min_samples));
        const int64_t n_frames = frontend.n_frames(static_cast<int64_t>(samples.back().size()), true, true);
        features.push_back({n_frames, n_mels, std::vector<float>(static_cast<size_t>(n_frames * n_mels))});
    }
    backend_.parallel([&](int ith, int nth) {
        for (auto i = static_cast<size_t>(ith); i < pieces.size(); i += static_cast<size_t>(nth)) {
            Matrix& piece = features[i];
            frontend.compute(samples[i].data(), static_cast<int64_t>(samples[i].size()), true, piece.rows,
                             piece.values.data(), 0, 1);
            if (frontend.config().normalization == Normalization::Mean)
                subtract_mean(piece.values.data(), piece.rows, n_mels);
        }
    });
    return features;
}

std::unique_ptr<Pass> SpeakerSession::build(int64_t n_frames, int64_t batch, std::vector<std::string> taps) {
    ggml_backend_sched_ptr memory = pass_ ? pass_->graph.give_memory() : nullptr;
    pass_.reset();
    auto pass = std::make_unique<Pass>(backend_, n_frames, batch, model_->max_nodes(n_frames),
                                       std::move(taps), std::move(memory));
    pass->features = pass->graph.input(GGML_TYPE_F32, {model_->frontend.config().n_mels, n_frames, batch});
    pass->output = model_->embed(pass->graph, pass->features);
    pass->graph.tap("output", pass->output);
    pass->graph.output(pass->output);
    pass->graph.finish();
    return pass;
}

void run(Pass& pass, const std::vector<const float*>& pieces) {
    const size_t nbytes = pass.features->nb[2];
    for (size_t b = 0; b < pieces.size(); ++b)
        ggml_backend_tensor_set(pass.features, pieces[b], b * nbytes, nbytes);
    pass.graph.run();
}

void to_length_one(float* x, int64_t n) {
    double square = 0;
    for (int64_t i = 0; i < n; ++i) square += double(x[i]) * x[i];
    const double scale = 1 / std::max(std::sqrt(square), 1e-12);
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] * scale);
}

Matrix SpeakerSession::speaker_embeddings(const std::vector<SamplesView>& pieces) {
    const int64_t n_dims = model_->n_dims;
    Matrix result{static_cast<int64_t>(pieces.size()), n_dims,
                  std::vector<float>(pieces.size() * static_cast<size_t>(n_dims))};
    if (pieces.empty()) return result;
    const std::vector<Matrix> features = features_of(pieces);
    std::map<int64_t, std::vector<size_t>> by_length;
    for (size_t i = 0; i < features.size(); ++i) by_length[features[i].rows].push_back(i);
    // Frames that keep the device busy; more at once would only need more memory.
    const int64_t most = backend_.on_cpu() ? 1200 : 16384;
    std::vector<float> rows;
    for (const auto& [n_frames, members] : by_length) {
        const auto step = static_cast<size_t>(std::max<int64_t>(1, most / n_frames));
        for (size_t first = 0; first < members.size(); first += step) {
            const size_t count = std::min(step, members.size() - first);
            const auto batch = static_cast<int64_t>(count);
            if (!pass_ || pass_->n_frames != n_frames || pass_->batch != batch)
                pass_ = build(n_frames, batch, {});
            std::vector<const float*> inputs;
            for (size_t i = 0; i < count; ++i) inputs.push_back(features[members[first + i]].values.data());
            run(*pass_, inputs);
            rows.resize(count * static_cast<size_t>(n_dims));
            read(pass_->output, rows.data());
            for (size_t i = 0; i < count; ++i) {
                float* row = &result.values[members[first + i] * static_cast<size_t>(n_dims)];
                std::copy_n(&rows[i * static_cast<size_t>(n_dims)], n_dims, row);
                to_length_one(row, n_dims);
            }
        }
    }
    return result;
}

std::map<std::string, Matrix> SpeakerSession::encode_taps(const std::vector<MatrixView>& features,
                                                          const std::vector<std::string>& names) {
    const int64_t n_mels = model_->frontend.config().n_mels;
    const int64_t least = model_->frontend.n_frames(model_->min_samples, true, true);
    std::vector<const float*> inputs;
    for (const MatrixView& piece : features) {
        if (piece.columns != n_mels || piece.rows < least || piece.rows != features.front().rows) {
            throw OptionError("features: expected pieces of one length, at least " + std::to_string(least) +
                              " frames of " + std::to_string(n_mels) + " mels, found " +
                              std::to_string(piece.rows) + " of " + std::to_string(piece.columns));
        }
        inputs.push_back(piece.values);
    }
    if (inputs.empty()) throw OptionError("features: expected at least one piece, found none");
    const auto pass = build(features.front().rows, static_cast<int64_t>(features.size()), names);
    run(*pass, inputs);
    return collect_taps(pass->graph, names);
}

}  // namespace

SpeakerModel::SpeakerModel(std::unique_ptr<WeightStore> store, int n_dims)
    : Model(std::move(store)),
      frontend(store_->root() / "frontend", store_->file()),
      n_dims(n_dims),
      min_samples(store_->file().u32("speaker.min_samples", 1, 1 << 24)) {
    const MelConfig& c = frontend.config();
    const int64_t least =
        c.win_length + 2 * c.hop_length;  // the deviation over frames needs two at half the rate
    if (min_samples >= least) return;
    throw ModelFileError(store_->file().path() +
                         ": key speaker.min_samples: expected samples for 3 frames, " +
                         std::to_string(least) + " or more, found " + std::to_string(min_samples));
}

std::unique_ptr<Session> SpeakerModel::session() const {
    auto self = std::static_pointer_cast<const SpeakerModel>(shared_from_this());
    return std::make_unique<SpeakerSession>(std::move(self), store_->device());
}

}  // namespace rustasr
