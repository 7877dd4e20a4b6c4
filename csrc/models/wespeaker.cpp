// WeSpeaker's ResNets of basic blocks (ResNet18, ResNet34), speaker encoders. Follows
// wespeaker/models/resnet.py and TSTP in pooling_layers.py (wenet-e2e/wespeaker, dfa7419). The sizes of
// ResNet34:
//
//   features                                              [80, T, B]
//     conv1       3×3, ReLU                               [32, 80, T, B]
//     layer1      3 residual blocks                       [32, 80, T, B]
//     layer2      4, the first halves mels and frames     [64, 40, ⌈T/2⌉, B]
//     layer3      6, so does its first                    [128, 20, ⌈T/4⌉, B]
//     layer4      3, and its first                        [256, 10, ⌈T/8⌉, B] = [2560, T', B]
//     stats       mean and deviation over frames          [5120, B]
//     dense                                               [256, B]     nothing behind it

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "models/speaker_session.h"
#include "nn/convolution.h"
#include "nn/layers.h"
#include "nn/residual.h"

namespace rustasr {
namespace {

constexpr float kVarianceFloor = 1e-7F;  // TSTP's
constexpr int64_t kFewestFrames = 9;     // of which two are left for the deviation

struct WespeakerConfig {
    int n_mels;
    int channels;  // of layer1; each of the other layers doubles them
    int n_dims;
    std::vector<int32_t> layers;  // blocks in each

    static WespeakerConfig read(const GgufFile& file);
};

WespeakerConfig WespeakerConfig::read(const GgufFile& file) {
    WespeakerConfig c{};
    c.n_mels = static_cast<int>(file.u32("frontend.n_mels", 8, 512));
    c.channels = static_cast<int>(file.u32("wespeaker.channels", 1, 512));
    c.n_dims = static_cast<int>(file.u32("speaker.n_dims", 1, 8192));
    c.layers = file.i32_array("wespeaker.layers");
    const auto fail = [&](const char* key, const std::string& expected, const std::string& found) {
        throw ModelFileError(file.path() + ": key " + key + ": expected " + expected + ", found " + found);
    };
    if (c.n_mels % 8 != 0) fail("frontend.n_mels", "a multiple of 8", std::to_string(c.n_mels));
    if (c.layers.size() != 4) fail("wespeaker.layers", "4 layers", std::to_string(c.layers.size()));
    for (int32_t n : c.layers) {
        if (n < 1 || n > 256) fail("wespeaker.layers", "1 to 256 blocks", std::to_string(n));
    }
    return c;
}

class Wespeaker : public SpeakerModel {
   public:
    Wespeaker(std::unique_ptr<WeightStore> store, const WespeakerConfig& config)
        : SpeakerModel(std::move(store), config.n_dims),
          conv1_(store_->root() / "conv1", {1, config.channels, 3, 3}) {
        int64_t n_in = config.channels;
        for (size_t i = 0; i < config.layers.size(); ++i) {
            const int64_t n_out = int64_t{config.channels} << i;
            const Weights layer = store_->root() / ("layer" + std::to_string(i + 1));
            layers_.emplace_back();
            for (int k = 0; k < config.layers[i]; ++k) {
                const int stride = i > 0 && k == 0 ? 2 : 1;
                layers_.back().emplace_back(layer / k, ResidualShape{n_in, n_out, stride, stride});
                n_in = n_out;
                ++n_blocks_;
            }
        }
        dense_ = Linear(store_->root() / "dense", 2 * n_in * config.n_mels / 8, config.n_dims);
        const int64_t n_frames = frontend.n_frames(min_samples, true, true);
        if (n_frames >= kFewestFrames) return;
        throw ModelFileError(store_->file().path() + ": key speaker.min_samples: expected samples for " +
                             std::to_string(kFewestFrames) + " frames or more, found " +
                             std::to_string(min_samples) + " for " + std::to_string(n_frames));
    }

    ggml_tensor* embed(Graph& graph, ggml_tensor* features) const override {
        ggml_tensor* x =
            piece_by_piece(graph, features, [&](ggml_tensor* piece) { return trunk(graph, piece); });
        x = graph.tap("stats", time_statistics(graph, x, kVarianceFloor));
        return dense_(graph, x);
    }
    size_t max_nodes(int64_t n_frames) const override {
        const auto n_pieces = static_cast<size_t>(std::max<int64_t>(16, kFramesAtOnce / n_frames + 1));
        return 1024 + 48 * n_blocks_ * n_pieces;
    }

   private:
    /// features [n_mels, T, B] → [8 · channels · n_mels / 8, T', B], the channels of a mel as neighbours.
    ggml_tensor* trunk(Graph& graph, ggml_tensor* x) const {
        ggml_context* ctx = graph.ctx();
        x = conv1_(graph, ggml_reshape_4d(ctx, x, 1, x->ne[0], x->ne[1], x->ne[2]), Activation::Relu);
        for (size_t i = 0; i < layers_.size(); ++i) {
            for (const ResidualBlock& block : layers_[i]) x = block(graph, x);
            graph.tap("layer" + std::to_string(i + 1),
                      ggml_reshape_3d(ctx, x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]));
        }
        return ggml_reshape_3d(ctx, x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]);
    }

    ExactConv2d conv1_;
    std::vector<std::vector<ResidualBlock>> layers_;
    Linear dense_;
    size_t n_blocks_ = 0;
};

}  // namespace

std::unique_ptr<Model> make_wespeaker(std::unique_ptr<WeightStore> store) {
    const WespeakerConfig config = WespeakerConfig::read(store->file());
    return std::make_unique<Wespeaker>(std::move(store), config);
}

}  // namespace rustasr
