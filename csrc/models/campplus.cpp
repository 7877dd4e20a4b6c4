// CAM++ (Wang et al. 2023, arXiv:2303.00332), a speaker encoder. Follows speakerlab/models/campplus/DTDNN.py
// and layers.py (3D-Speaker, 09e7806, 2025-10). Sizes of the Chinese and English model, T frames of 10 ms:
//
//   Kaldi log-mel, less its mean                            [80, T, B]
//     head (FCM)            over mels and frames, BatchNorms folded, ReLU
//       conv1 3×3                                           [32, 80, T, B]
//       layer1.0, layer1.1  residual blocks of two 3×3      [32, 40, T, B]   layer*.0 halve the mels,
//       layer2.0, layer2.1                                  [32, 20, T, B]   with a 1×1 shortcut
//       conv2 3×3, halves the mels                          [32, 10, T, B] = [320, T, B]
//     tdnn                  k5 over frames, stride 2, ReLU  [128, T', B]     T' = ⌈T/2⌉
//     block1: 12, block2: 24, block3: 16 dense layers, dilation 1, 2, 2
//       dense layer         relu(norm(x)) → 128, relu → local k3 → 32, times its context mask, behind x
//         mask              sigmoid(linear2(relu(linear1(mean over the piece + mean over 5 s))))
//       transit             relu(norm(x)) → half of the channels      512 → 256, 1024 → 512, 1024 → 512
//     relu, then stats      mean and deviation over frames  [1024, B]
//     dense                                                 [192, B]         no ReLU behind it
//
// The norms before a ReLU stay: a scale and a shift of each channel. Those behind a product are in its
// weights.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kernels/context_mask.h"
#include "kernels/exact_convolution.h"
#include "models/speaker_session.h"
#include "nn/convolution.h"
#include "nn/layers.h"
#include "nn/residual.h"

namespace rustasr {
namespace {

struct CamppConfig {
    int n_mels;
    int head_channels;
    int init_channels;  // of tdnn
    int bottleneck;     // channels between the two products of a dense layer
    int growth;         // channels that a dense layer adds
    int segment_frames;
    int n_dims;
    std::vector<int32_t> layers, dilations;  // by block

    static CamppConfig read(const GgufFile& file);
};

CamppConfig CamppConfig::read(const GgufFile& file) {
    const auto size = [&](const char* key, uint32_t max) { return static_cast<int>(file.u32(key, 1, max)); };
    CamppConfig c{};
    c.n_mels = static_cast<int>(file.u32("frontend.n_mels", 8, 512));
    c.head_channels = size("campplus.head_channels", 1024);
    c.init_channels = size("campplus.init_channels", 8192);
    c.bottleneck = static_cast<int>(file.u32("campplus.bottleneck", 2, 8192));
    c.growth = size("campplus.growth", 1024);
    c.segment_frames = size("campplus.segment_frames", 1 << 20);
    c.n_dims = size("speaker.n_dims", 8192);
    c.layers = file.i32_array("campplus.layers");
    c.dilations = file.i32_array("campplus.dilations");
    const auto fail = [&](const char* key, const std::string& expected, const std::string& found) {
        throw ModelFileError(file.path() + ": key " + key + ": expected " + expected + ", found " + found);
    };
    if (c.n_mels % 8 != 0) fail("frontend.n_mels", "a multiple of 8", std::to_string(c.n_mels));
    if (c.layers.empty() || c.layers.size() > 16)
        fail("campplus.layers", "1 to 16 blocks", std::to_string(c.layers.size()));
    if (c.layers.size() != c.dilations.size())
        fail("campplus.dilations", "a value for each block", std::to_string(c.dilations.size()));
    for (int32_t n : c.layers) {
        if (n < 1 || n > 256) fail("campplus.layers", "1 to 256 layers", std::to_string(n));
    }
    for (int32_t dilation : c.dilations) {
        if (dilation < 1 || dilation > 64)
            fail("campplus.dilations", "1 to 64 frames", std::to_string(dilation));
    }
    return c;
}

/// relu(scale · x + shift) of every channel: a BatchNorm and the ReLU behind it.
class NormRelu {
   public:
    NormRelu(Weights weights, int64_t n)
        : scale_(weights.get_f32("scale", {n})), shift_(weights.get_f32("shift", {n})) {}
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const {
        ggml_context* ctx = graph.ctx();
        if (graph.cpu_kernels()) return kernels::scaled_relu(ctx, x, scale_, shift_);
        return ggml_relu_inplace(ctx, ggml_add_inplace(ctx, ggml_mul(ctx, x, scale_), shift_));
    }

   private:
    ggml_tensor *scale_, *shift_;  // [n]
};

/// [n_mels, T, B] → [n_mels/8 · channels, T, B], the channels of a mel as neighbours.
class Head {
   public:
    Head(Weights weights, const CamppConfig& config)
        : conv1_(weights / "conv1", {1, config.head_channels, 3, 3}),
          conv2_(weights / "conv2", {config.head_channels, config.head_channels, 3, 3, 2}) {
        for (const char* layer : {"layer1", "layer2"}) {
            for (int i = 0; i < 2; ++i) {
                const ResidualShape shape{config.head_channels, config.head_channels, i == 0 ? 2 : 1};
                blocks_.emplace_back(weights / layer / i, shape);
            }
        }
    }
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const {
        ggml_context* ctx = graph.ctx();
        x = conv1_(graph, ggml_reshape_4d(ctx, x, 1, x->ne[0], x->ne[1], x->ne[2]), Activation::Relu);
        for (const ResidualBlock& block : blocks_) x = block(graph, x);
        x = conv2_(graph, x, Activation::Relu);
        return ggml_reshape_3d(ctx, x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]);
    }

   private:
    ExactConv2d conv1_, conv2_;
    std::vector<ResidualBlock> blocks_;
};

/// A convolution over frames only: x [C, T, B].
ggml_tensor* over_frames(Graph& graph, const ExactConv2d& conv, ggml_tensor* x, Activation activation) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* y = conv(graph, ggml_reshape_4d(ctx, x, x->ne[0], 1, x->ne[1], x->ne[2]), activation);
    return ggml_reshape_3d(ctx, y, y->ne[0], y->ne[2], y->ne[3]);
}

/// x [C, T, B] → the mean of the piece plus that of each segment [C, S, B]; the last segment may be shorter.
ggml_tensor* contexts(Graph& graph, ggml_tensor* x, int64_t segment) {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels()) return kernels::segment_contexts(ctx, x, segment);
    const int64_t n_frames = x->ne[1], n_segments = (n_frames - 1) / segment + 1;
    ggml_tensor* by_channel = ggml_cont(ctx, ggml_transpose(ctx, x));  // [T, C, B]
    ggml_tensor* whole = ggml_mean(ctx, by_channel);                   // [1, C, B]
    ggml_tensor* sum = nullptr;
    if (n_segments == 1) {
        sum = ggml_scale(ctx, whole, 2);
    } else {
        const auto part = [&](int64_t begin, int64_t n) {
            return ggml_view_3d(ctx, by_channel, n, x->ne[0], x->ne[2], by_channel->nb[1], by_channel->nb[2],
                                static_cast<size_t>(begin) * by_channel->nb[0]);
        };
        ggml_tensor* means = nullptr;
        for (int64_t i = 0; i < n_segments; ++i) {
            const int64_t n = std::min(segment, n_frames - i * segment);
            ggml_tensor* mean = ggml_mean(ctx, ggml_cont(ctx, part(i * segment, n)));
            means = means ? ggml_concat(ctx, means, mean, 0) : mean;
        }
        sum = ggml_add(ctx, means, whole);  // [S, C, B]
    }
    return ggml_cont(ctx, ggml_transpose(ctx, sum));
}

/// What a dense layer adds to its input: values [growth, T, B] times the sigmoid of mask [growth, S, B],
/// segment by segment.
struct Addition {
    ggml_tensor *values, *mask;
};

ggml_tensor* masked(Graph& graph, const Addition& addition, int64_t segment) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor *x = addition.values, *mask = ggml_sigmoid(ctx, addition.mask);
    const int64_t n = x->ne[0], n_segments = mask->ne[1], batch = x->ne[2];
    if (n_segments > 1) {
        mask = ggml_reshape_4d(ctx, mask, n, 1, n_segments, batch);
        mask = ggml_repeat_4d(ctx, mask, n, segment, n_segments, batch);
        mask = ggml_view_3d(ctx, mask, n, x->ne[1], batch, mask->nb[1], mask->nb[3], 0);
    }
    return ggml_mul(ctx, x, mask);
}

/// One layer of a block: x [C, T, B] → what it adds.
class DenseLayer {
   public:
    DenseLayer(Weights weights, int64_t n_in, int dilation, const CamppConfig& config)
        : norm_(weights / "norm", n_in),
          linear_(weights / "linear", n_in, config.bottleneck),
          local_(weights / "local", {config.bottleneck, config.growth, 1, 3, 1, 1, dilation}, false),
          context1_(weights / "context1", config.bottleneck, config.bottleneck / 2),
          context2_(weights / "context2", config.bottleneck / 2, config.growth),
          segment_(config.segment_frames) {}

    Addition operator()(Graph& graph, ggml_tensor* x) const {
        x = linear_(graph, norm_(graph, x), Activation::Relu);
        ggml_tensor* context = context1_(graph, contexts(graph, x, segment_), Activation::Relu);
        return {over_frames(graph, local_, x, Activation::None), context2_(graph, context)};
    }

   private:
    NormRelu norm_;
    Linear linear_;
    ExactConv2d local_;
    Linear context1_, context2_;
    int64_t segment_;
};

/// Dense layers, and the transit behind them; the last one has the norm behind it in its weights.
class DenseBlock {
   public:
    DenseBlock(Weights layers, Weights transit, int64_t n_in, int n_layers, int dilation, bool is_last,
               const CamppConfig& config)
        : n_all_(n_in + static_cast<int64_t>(n_layers) * config.growth),
          n_out_(n_all_ / 2),
          segment_(config.segment_frames),
          norm_(transit / "norm", n_all_),
          transit_(transit / "linear", n_all_, n_out_, is_last),
          activation_(is_last ? Activation::Relu : Activation::None) {
        for (int i = 0; i < n_layers; ++i) {
            layers_.emplace_back(layers / i, n_in, dilation, config);
            n_in += config.growth;
        }
    }
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, const std::string& name) const {
        x = graph.cpu_kernels() ? grown_in_place(graph, x) : grown(graph, x);
        graph.tap(name, x);
        return transit_(graph, norm_(graph, x), activation_);
    }
    int64_t n_out() const { return n_out_; }

   private:
    ggml_tensor* grown(Graph& graph, ggml_tensor* x) const {
        for (const DenseLayer& layer : layers_)
            x = ggml_concat(graph.ctx(), x, masked(graph, layer(graph, x), segment_), 0);
        return x;
    }
    // Room for all channels from the start: nothing is copied again and again.
    ggml_tensor* grown_in_place(Graph& graph, ggml_tensor* x) const {
        ggml_context* ctx = graph.ctx();
        int64_t n = x->ne[0];
        ggml_tensor* all = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, n_all_, x->ne[1], x->ne[2]);
        all = kernels::append_masked(ctx, all, x, nullptr, segment_, 0);
        for (const DenseLayer& layer : layers_) {
            ggml_tensor* so_far = ggml_view_3d(ctx, all, n, x->ne[1], x->ne[2], all->nb[1], all->nb[2], 0);
            const Addition addition = layer(graph, so_far);
            all = kernels::append_masked(ctx, all, addition.values, addition.mask, segment_, n);
            n += addition.values->ne[0];
        }
        return all;
    }

    int64_t n_all_, n_out_, segment_;
    std::vector<DenseLayer> layers_;
    NormRelu norm_;
    Linear transit_;
    Activation activation_;
};

class Campplus : public SpeakerModel {
   public:
    Campplus(std::unique_ptr<WeightStore> store, const CamppConfig& config)
        : SpeakerModel(std::move(store), config.n_dims),
          head_(store_->root() / "head", config),
          tdnn_(store_->root() / "tdnn", {static_cast<int64_t>(config.n_mels) / 8 * config.head_channels,
                                          config.init_channels, 1, 5, 1, 2}),
          segment_frames_(config.segment_frames) {
        int64_t n = config.init_channels;
        for (size_t i = 0; i < config.layers.size(); ++i) {
            const std::string number = std::to_string(i + 1);
            blocks_.emplace_back(store_->root() / ("block" + number), store_->root() / ("transit" + number),
                                 n, config.layers[i], config.dilations[i], i + 1 == config.layers.size(),
                                 config);
            n = blocks_.back().n_out();
            n_layers_ += static_cast<size_t>(config.layers[i]);
        }
        dense_ = Linear(store_->root() / "dense", 2 * n, config.n_dims);
    }

    ggml_tensor* embed(Graph& graph, ggml_tensor* features) const override {
        ggml_tensor* x =
            piece_by_piece(graph, features, [&](ggml_tensor* piece) { return front(graph, piece); });
        for (size_t i = 0; i < blocks_.size(); ++i) x = blocks_[i](graph, x, "block" + std::to_string(i + 1));
        return dense_(graph, graph.tap("stats", time_statistics(graph, x)));
    }
    size_t max_nodes(int64_t n_frames) const override {
        const auto n_segments = static_cast<size_t>((n_frames / 2) / segment_frames_ + 2);
        return 1024 + (64 + 4 * n_segments) * n_layers_;
    }

   private:
    ggml_tensor* front(Graph& graph, ggml_tensor* features) const {
        ggml_tensor* x = graph.tap("head", head_(graph, features));
        return graph.tap("tdnn", over_frames(graph, tdnn_, x, Activation::Relu));
    }

    Head head_;
    ExactConv2d tdnn_;
    std::vector<DenseBlock> blocks_;
    Linear dense_;
    size_t n_layers_ = 0;
    int64_t segment_frames_;
};

}  // namespace

std::unique_ptr<Model> make_campplus(std::unique_ptr<WeightStore> store) {
    const CamppConfig config = CamppConfig::read(store->file());
    return std::make_unique<Campplus>(std::move(store), config);
}

}  // namespace rustasr
