#include "models/speaker_session.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/last_pass.h"

namespace rustasr {
namespace {

/// Which graph: so many parts of so many frames.
struct PassShape {
    int64_t n_frames, batch;
    std::vector<std::string> taps;

    bool operator==(const PassShape& o) const {
        return std::tie(n_frames, batch, taps) == std::tie(o.n_frames, o.batch, o.taps);
    }
};

struct Pass {
    Pass(Backend& backend, size_t max_nodes, std::vector<std::string> taps, GraphMemory memory)
        : graph(backend, max_nodes, kernels::Precision::F32, std::move(taps), std::move(memory)) {}
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
    /// Normalised features of each piece, as far as its parts reach.
    std::vector<Matrix> features_of(const std::vector<Parts>& pieces);
    std::unique_ptr<Pass> build(const PassShape& shape, GraphMemory memory);
    /// The pass of parts of n_frames each, which has run.
    const Pass& run(int64_t n_frames, const std::vector<const float*>& parts, std::vector<std::string> taps);

    std::shared_ptr<const SpeakerModel> model_;
    LastPass<PassShape, Pass> pass_;
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

std::vector<Matrix> SpeakerSession::features_of(const std::vector<Parts>& pieces) {
    const MelFrontend& frontend = model_->frontend;
    const int64_t n_mels = frontend.config().n_mels;
    std::vector<Matrix> features;
    for (const Parts& piece : pieces) {
        const int64_t n_frames = piece.starts.back() + piece.n_frames;
        features.push_back({n_frames, n_mels, std::vector<float>(static_cast<size_t>(n_frames * n_mels))});
    }
    backend_.parallel([&](int ith, int nth) {
        for (auto i = static_cast<size_t>(ith); i < pieces.size(); i += static_cast<size_t>(nth)) {
            Matrix& piece = features[i];
            const std::vector<float>& samples = pieces[i].samples;
            frontend.compute(samples.data(), static_cast<int64_t>(samples.size()), true, piece.rows,
                             piece.values.data(), 0, 1);
            if (frontend.config().normalization == Normalization::Mean)
                subtract_mean(piece.values.data(), piece.rows, n_mels);
        }
    });
    return features;
}

std::unique_ptr<Pass> SpeakerSession::build(const PassShape& shape, GraphMemory memory) {
    auto pass =
        std::make_unique<Pass>(backend_, model_->max_nodes(shape.n_frames), shape.taps, std::move(memory));
    pass->features =
        pass->graph.input(GGML_TYPE_F32, {model_->frontend.config().n_mels, shape.n_frames, shape.batch});
    pass->output = model_->embed(pass->graph, pass->features);
    pass->graph.tap("output", pass->output);
    pass->graph.output(pass->output);
    pass->graph.finish();
    return pass;
}

const Pass& SpeakerSession::run(int64_t n_frames, const std::vector<const float*>& parts,
                                std::vector<std::string> taps) {
    const PassShape shape{n_frames, static_cast<int64_t>(parts.size()), std::move(taps)};
    Pass& pass = pass_.of(shape, [&](GraphMemory memory) { return build(shape, std::move(memory)); });
    const size_t nbytes = pass.features->nb[2];
    for (size_t b = 0; b < parts.size(); ++b)
        ggml_backend_tensor_set(pass.features, parts[b], b * nbytes, nbytes);
    pass.graph.run();
    return pass;
}

void to_length_one(float* x, int64_t n) {
    double square = 0;
    for (int64_t i = 0; i < n; ++i) square += double(x[i]) * x[i];
    const double scale = 1 / std::max(std::sqrt(square), 1e-12);
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] * scale);
}

Matrix SpeakerSession::speaker_embeddings(const std::vector<SamplesView>& pieces) {
    const int64_t n_dims = model_->n_dims, n_mels = model_->frontend.config().n_mels;
    Matrix result{static_cast<int64_t>(pieces.size()), n_dims,
                  std::vector<float>(pieces.size() * static_cast<size_t>(n_dims))};
    if (pieces.empty()) return result;
    std::vector<Parts> parts;
    for (const SamplesView& piece : pieces) {
        if (piece.n < 1) throw OptionError("pieces: expected at least one sample in each, found none");
        parts.push_back(model_->parts(piece));
    }
    const std::vector<Matrix> features = features_of(parts);
    struct Part {
        size_t piece;
        const float* features;
    };
    std::map<int64_t, std::vector<Part>> by_length;
    for (size_t i = 0; i < parts.size(); ++i) {
        for (int64_t start : parts[i].starts)
            by_length[parts[i].n_frames].push_back({i, features[i].values.data() + start * n_mels});
    }
    const auto row_of = [&](size_t piece) { return &result.values[piece * static_cast<size_t>(n_dims)]; };
    const int64_t most = backend_.on_cpu() ? kFramesAtOnce : 16384;
    std::vector<float> rows;
    for (const auto& [n_frames, members] : by_length) {
        const auto step = static_cast<size_t>(std::max<int64_t>(1, most / n_frames));
        for (size_t first = 0; first < members.size(); first += step) {
            const size_t count = std::min(step, members.size() - first);
            std::vector<const float*> inputs;
            for (size_t i = 0; i < count; ++i) inputs.push_back(members[first + i].features);
            rows.resize(count * static_cast<size_t>(n_dims));
            read(run(n_frames, inputs, {}).output, rows.data());
            for (size_t i = 0; i < count; ++i) {
                float *part = &rows[i * static_cast<size_t>(n_dims)], *sum = row_of(members[first + i].piece);
                to_length_one(part, n_dims);
                for (int64_t d = 0; d < n_dims; ++d) sum[d] += part[d];
            }
        }
    }
    for (size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].starts.size() > 1) to_length_one(row_of(i), n_dims);
    }
    return result;
}

std::map<std::string, Matrix> SpeakerSession::encode_taps(const std::vector<MatrixView>& features,
                                                          const std::vector<std::string>& names) {
    const int64_t n_mels = model_->frontend.config().n_mels;
    const int64_t least = model_->fewest_frames();
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
    return collect_taps(run(features.front().rows, inputs, names).graph, names);
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

Parts SpeakerModel::parts(const SamplesView& piece) const {
    std::vector<float> samples = repeated(piece, min_samples);
    const int64_t n_frames = frontend.n_frames(static_cast<int64_t>(samples.size()), true, true);
    return {std::move(samples), n_frames, {0}};
}

std::unique_ptr<Session> SpeakerModel::session() const {
    auto self = std::static_pointer_cast<const SpeakerModel>(shared_from_this());
    return std::make_unique<SpeakerSession>(std::move(self), store_->device());
}

}  // namespace rustasr
