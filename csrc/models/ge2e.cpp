// The speaker encoder of GE2E (Wan et al. 2018, arXiv:1710.10467) as Resemblyzer has it. Follows
// resemblyzer/voice_encoder.py and audio.py (Resemblyzer 0.1.4). Its sizes:
//
//   samples, then zeros up to the end of the last part
//     mel powers, no logarithm                        [40, T]
//     parts of 160 frames, one every 77               [40, 160, B], zeros up to 48 mels
//     lstm.0, lstm.1, lstm.2, all steps               [256, 160, B] each
//     linear of the last step, ReLU                   [256, B]
//     x / ‖x‖; mean of a piece's parts, x / ‖x‖
//
// Powers make loudness matter: whoever has a whole recording brings its speech to speaker.level_db first. The
// zeros fill whole vectors of 16, without which ggml's fast products do not take the first layer's input.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "models/speaker_session.h"
#include "nn/layers.h"
#include "nn/lstm.h"

namespace rustasr {
namespace {

struct Ge2eConfig {
    int n_mels;
    int n_layers, n_hidden;
    int n_dims;
    int part_frames;       // of a part
    int part_step;         // frames from one to the next
    float least_coverage;  // share of the last part that samples must fill, unless it is the only one

    static Ge2eConfig read(const GgufFile& file);
    int n_input() const { return (n_mels + 15) / 16 * 16; }  // mels, then zeros
};

Ge2eConfig Ge2eConfig::read(const GgufFile& file) {
    const auto size = [&](const char* key, uint32_t max) { return static_cast<int>(file.u32(key, 1, max)); };
    Ge2eConfig c{};
    c.n_mels = size("frontend.n_mels", 512);
    c.n_layers = size("ge2e.layers", 8);
    c.n_hidden = size("ge2e.hidden", 8192);
    c.n_dims = size("speaker.n_dims", 8192);
    c.part_frames = size("ge2e.part_frames", 1000);
    c.part_step = size("ge2e.part_step", 1000);
    c.least_coverage = file.f32("ge2e.least_coverage");
    if (c.part_step > c.part_frames) {
        throw ModelFileError(file.path() + ": key ge2e.part_step: expected at most ge2e.part_frames, " +
                             std::to_string(c.part_frames) + ", found " + std::to_string(c.part_step));
    }
    if (!(c.least_coverage > 0 && c.least_coverage <= 1)) {
        throw ModelFileError(file.path() +
                             ": key ge2e.least_coverage: expected a share above 0, at most 1, found " +
                             std::to_string(c.least_coverage));
    }
    return c;
}

class Ge2e : public SpeakerModel {
   public:
    Ge2e(std::unique_ptr<WeightStore> store, const Ge2eConfig& config)
        : SpeakerModel(std::move(store), config.n_dims),
          config_(config),
          linear_(store_->root() / "linear", config.n_hidden, config.n_dims) {
        for (int i = 0; i < config.n_layers; ++i) {
            const int n_in = i == 0 ? config.n_input() : config.n_hidden;
            lstm_.emplace_back(store_->root() / "lstm" / i, n_in, config.n_hidden);
        }
    }

    Parts parts(const SamplesView& piece) const override;
    int64_t fewest_frames() const override { return 1; }

    ggml_tensor* embed(Graph& graph, ggml_tensor* features) const override {
        ggml_context* ctx = graph.ctx();
        const int64_t n = config_.n_hidden, n_frames = features->ne[1], batch = features->ne[2];
        ggml_tensor* silence = ggml_fill(ctx, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 2 * n, batch), 0);
        ggml_tensor *x = ggml_pad(ctx, features, config_.n_input() - config_.n_mels, 0, 0, 0),
                    *last = nullptr;
        for (size_t i = 0; i < lstm_.size(); ++i) {
            ggml_tensor* states = lstm_[i](graph, x, silence);  // [≥ 2n, T, B]
            x = ggml_view_3d(ctx, states, n, n_frames, batch, states->nb[1], states->nb[2], 0);
            x = ggml_cont(ctx, x);  // without gaps the next layer's product is several times faster
            last = ggml_view_2d(ctx, states, n, batch, states->nb[2],
                                static_cast<size_t>(n_frames - 1) * states->nb[1]);
            last = graph.tap("lstm." + std::to_string(i), ggml_cont(ctx, last));
        }
        return linear_(graph, last, Activation::Relu);
    }
    size_t max_nodes(int64_t n_frames) const override {
        return 256 +
               lstm_.size() * (32 + 24 * static_cast<size_t>(n_frames));  // 20 a step without our kernels
    }

   private:
    Ge2eConfig config_;
    std::vector<LstmSequence> lstm_;
    Linear linear_;
};

// voice_encoder.py: compute_partial_slices.
Parts Ge2e::parts(const SamplesView& piece) const {
    const int64_t hop = frontend.config().hop_length, length = config_.part_frames, step = config_.part_step;
    const int64_t n_frames = (piece.n + hop) / hop;  // the frames that begin before or at the last sample
    Parts parts{{piece.values, piece.values + piece.n}, length, {}};
    for (int64_t start = 0; start < std::max<int64_t>(1, n_frames - length + step + 1); start += step)
        parts.starts.push_back(start);
    const auto covered = static_cast<double>(piece.n - parts.starts.back() * hop);
    if (covered < double(config_.least_coverage) * static_cast<double>(length * hop) &&
        parts.starts.size() > 1)
        parts.starts.pop_back();
    const int64_t end = (parts.starts.back() + length) * hop;
    parts.samples.resize(static_cast<size_t>(std::max(piece.n, end)));
    return parts;
}

}  // namespace

std::unique_ptr<Model> make_ge2e(std::unique_ptr<WeightStore> store) {
    const Ge2eConfig config = Ge2eConfig::read(store->file());
    return std::make_unique<Ge2e>(std::move(store), config);
}

}  // namespace rustasr
