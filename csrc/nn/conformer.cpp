#include "nn/conformer.h"

#include <cmath>
#include <string>
#include <utility>

#include "core/error.h"

namespace rustasr {
namespace {

template <typename Value>
Value choice(const GgufFile& file, const char* key,
             std::initializer_list<std::pair<const char*, Value>> known) {
    const std::string found = file.str(key);
    std::string names;
    for (const auto& [name, value] : known) {
        if (found == name) return value;
        names += std::string(names.empty() ? "" : ", ") + name;
    }
    throw ModelFileError(file.path() + ": key " + key + ": expected one of " + names + ", found " +
                         in_quotes(found));
}

void expect(bool holds, const GgufFile& file, const char* key, const std::string& expected, int found) {
    if (holds) return;
    throw ModelFileError(file.path() + ": key " + key + ": expected " + expected + ", found " +
                         std::to_string(found));
}

}  // namespace

// --- hyper-parameters
// -----------------------------------------------------------------------------------------

ConformerConfig ConformerConfig::read(const GgufFile& file) {
    const auto size = [&](const char* name, uint32_t max) {
        return static_cast<int>(file.u32(std::string("conformer.") + name, 1, max));
    };
    ConformerConfig c{};
    c.n_mels = static_cast<int>(file.u32("frontend.n_mels", 1, 512));
    c.n_layer = size("n_layer", 256);
    c.d_model = size("d_model", 8192);
    c.n_head = size("n_head", 256);
    c.d_ff = size("d_ff", 65536);
    c.conv_kernel = size("conv_kernel", 255);
    c.use_bias = file.boolean("conformer.use_bias");
    c.xscaling = file.boolean("conformer.xscaling");
    c.conv_norm = choice<bool>(file, "conformer.conv_norm", {{"layer_norm", true}, {"none", false}});
    c.attention = choice<AttentionKind>(
        file, "conformer.attention",
        {{"rotary", AttentionKind::Rotary}, {"rel_pos", AttentionKind::RelativePosition}});
    if (c.attention == AttentionKind::Rotary) c.rope_base = file.f32("conformer.rope_base");
    c.subsampling = choice<SubsamplingKind>(file, "conformer.subsampling",
                                            {{"conv1d", SubsamplingKind::Conv1d},
                                             {"conv2d", SubsamplingKind::Conv2d},
                                             {"dw_striding", SubsamplingKind::DepthwiseStriding}});
    c.subsampling_factor = size("subsampling_factor", 64);
    c.subsampling_kernel = size("subsampling_kernel", 31);
    c.subsampling_channels = size("subsampling_channels", 8192);

    expect(c.d_model % c.n_head == 0, file, "conformer.d_model",
           "a multiple of conformer.n_head (" + std::to_string(c.n_head) + ")", c.d_model);
    expect(c.d_head() % 2 == 0, file, "conformer.n_head",
           "an even number of the " + std::to_string(c.d_model) + " values for each", c.n_head);
    expect(c.conv_kernel % 2 == 1, file, "conformer.conv_kernel", "an odd number", c.conv_kernel);
    expect(c.subsampling_kernel % 2 == 1 && c.subsampling_kernel > 1, file, "conformer.subsampling_kernel",
           "an odd number above 1", c.subsampling_kernel);
    expect(c.subsampling_factor > 1 && 1 << c.n_stages() == c.subsampling_factor, file,
           "conformer.subsampling_factor", "a power of two above 1", c.subsampling_factor);
    expect(c.n_mels >= c.subsampling_factor, file, "frontend.n_mels",
           "at least conformer.subsampling_factor (" + std::to_string(c.subsampling_factor) + ")", c.n_mels);
    if (c.subsampling == SubsamplingKind::DepthwiseStriding) {
        expect(c.subsampling_factor > 2, file, "conformer.subsampling_factor", "4 or more with dw_striding",
               c.subsampling_factor);
    } else {
        expect(c.subsampling_channels == c.d_model, file, "conformer.subsampling_channels",
               "conformer.d_model (" + std::to_string(c.d_model) + ")", c.subsampling_channels);
    }
    if (c.attention == AttentionKind::Rotary && !(c.rope_base > 1)) {
        throw ModelFileError(file.path() + ": key conformer.rope_base: expected more than 1, found " +
                             std::to_string(c.rope_base));
    }
    return c;
}

int ConformerConfig::n_stages() const {
    int n = 0;
    while (subsampling_factor >> (n + 1)) ++n;
    return n;
}

int64_t ConformerConfig::n_frames(int64_t n_mel_frames) const {
    for (int stage = 0; stage < n_stages(); ++stage) n_mel_frames = halved(n_mel_frames);
    return n_mel_frames;
}

// --- subsampling
// ----------------------------------------------------------------------------------------------

namespace {

/// Places of the mel axis that are left after all stages.
int64_t places_left(const ConformerConfig& c) {
    int64_t n = c.n_mels;
    for (int stage = 0; stage < c.n_stages(); ++stage) n = halved(n);
    return n;
}

/// A linear over all channels and places of a frame: [C, F, T, B] → [d, T, B].
ggml_tensor* flatten(Graph& graph, const Linear& out, ggml_tensor* x) {
    return out(graph, ggml_reshape_3d(graph.ctx(), x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]));
}

/// Convolutions over frames with a ReLU behind each; mels are channels.
class Conv1dSubsampling final : public Subsampling {
   public:
    Conv1dSubsampling(Weights w, const ConformerConfig& c) : padding_(c.subsampling_kernel / 2) {
        for (int i = 0; i < c.n_stages(); ++i) {
            conv_.emplace_back(w / "conv" / (2 * i), i ? c.d_model : c.n_mels, c.d_model,
                               c.subsampling_kernel, 2);
        }
    }
    int padding() const override { return padding_; }

    ggml_tensor* operator()(Graph& graph, ggml_tensor* mel, const ConformerBatch& batch) const override {
        ggml_tensor* x = mel;
        for (size_t i = 0; i < conv_.size(); ++i) {
            if (i) {
                x = batch.masks[i].zero_padding(graph, x);
                x = pad_frames(graph, x, padding_, padding_);
            }
            x = conv_[i](graph, x, Activation::Relu);
        }
        return x;
    }

   private:
    int padding_;
    std::vector<Conv1d> conv_;
};

/// Dense convolutions over frames and mels with a ReLU behind each.
class Conv2dSubsampling final : public Subsampling {
   public:
    Conv2dSubsampling(Weights w, const ConformerConfig& c)
        : input_(w / "conv" / 0, c.subsampling_channels, c.subsampling_kernel),
          out_(w / "out", places_left(c) * c.subsampling_channels, c.d_model) {
        for (int i = 1; i < c.n_stages(); ++i) {
            conv_.emplace_back(w / "conv" / (2 * i), c.subsampling_channels, c.subsampling_channels,
                               c.subsampling_kernel);
        }
    }

    ggml_tensor* operator()(Graph& graph, ggml_tensor* mel, const ConformerBatch& batch) const override {
        ggml_tensor* x = input_(graph, mel, Activation::Relu);
        for (size_t i = 0; i < conv_.size(); ++i) {
            x = conv_[i](graph, zero_padding(graph, x, batch.masks[i + 1]), Activation::Relu);
        }
        return flatten(graph, out_, x);
    }

   private:
    InputConv2d input_;
    std::vector<Conv2d> conv_;
    Linear out_;
};

/// A convolution with a ReLU, then depthwise and pointwise ones by turns with a ReLU behind the pointwise.
class DepthwiseStridingSubsampling final : public Subsampling {
   public:
    DepthwiseStridingSubsampling(Weights w, const ConformerConfig& c)
        : input_(w / "conv" / 0, c.subsampling_channels, c.subsampling_kernel),
          out_(w / "out", places_left(c) * c.subsampling_channels, c.d_model) {
        for (int i = 1; i < c.n_stages(); ++i) {
            depthwise_.emplace_back(w / "conv" / (3 * i - 1), c.subsampling_channels, c.subsampling_kernel);
            pointwise_.emplace_back(w / "conv" / (3 * i), c.subsampling_channels, c.subsampling_channels);
        }
    }

    ggml_tensor* operator()(Graph& graph, ggml_tensor* mel, const ConformerBatch& batch) const override {
        ggml_tensor* x = depthwise_[0].after(input_, graph, mel, batch.masks[1]);
        x = pointwise_[0](graph, x, Activation::Relu);
        for (size_t i = 1; i < depthwise_.size(); ++i) {
            x = pointwise_[i](graph, depthwise_[i](graph, x, batch.masks[i + 1]), Activation::Relu);
        }
        return flatten(graph, out_, x);
    }

   private:
    InputConv2d input_;
    std::vector<DepthwiseConv2d> depthwise_;
    std::vector<PointwiseConv2d> pointwise_;
    Linear out_;
};

std::unique_ptr<Subsampling> make_subsampling(Weights w, const ConformerConfig& c) {
    switch (c.subsampling) {
        case SubsamplingKind::Conv1d:
            return std::make_unique<Conv1dSubsampling>(w, c);
        case SubsamplingKind::Conv2d:
            return std::make_unique<Conv2dSubsampling>(w, c);
        case SubsamplingKind::DepthwiseStriding:
            break;
    }
    return std::make_unique<DepthwiseStridingSubsampling>(w, c);
}

// --- attention
// ------------------------------------------------------------------------------------------------

/// Queries and keys are projected from a rotated input, values from the input itself.
class RotaryAttention final : public SelfAttention {
   public:
    RotaryAttention(Weights w, const ConformerConfig& c)
        : d_(c.d_model),
          n_head_(c.n_head),
          rope_base_(c.rope_base),
          qk_(w / "qk", d_, 2 * d_, c.use_bias),
          v_(w / "v", d_, d_, c.use_bias),
          out_(w / "out", d_, d_, c.use_bias) {}

    ggml_tensor* operator()(Graph& graph, ggml_tensor* normed, ggml_tensor* residual,
                            const ConformerBatch& batch, size_t) const override {
        ggml_context* ctx = graph.ctx();
        const int64_t n_rows = normed->ne[1], d_head = d_ / n_head_;
        ggml_tensor* heads = ggml_reshape_3d(ctx, normed, d_head, n_head_, n_rows);
        ggml_tensor* rotated =
            ggml_rope_ext(ctx, heads, batch.positions, nullptr, static_cast<int>(d_head), GGML_ROPE_TYPE_NEOX,
                          0, rope_base_, 1.0f, 0.0f, 1.0f, 0.0f, 0.0f);
        ggml_tensor* qk = qk_(graph, ggml_reshape_2d(ctx, rotated, d_, n_rows));  // [2d, T·B]
        ggml_tensor* v = v_(graph, normed);                                       // [d, T·B]
        const auto part = [&](ggml_tensor* x, int64_t index) {
            return split_heads(graph, x, d_, n_head_, index, batch.n_frames, batch.batch);
        };
        ggml_tensor* y = rustasr::attention(graph, part(qk, 0), part(qk, 1), part(v, 0), batch.frames());
        return out_(graph, y, Activation::None, residual);
    }

   private:
    int64_t d_, n_head_;
    float rope_base_;
    Linear qk_, v_, out_;
};

/// Transformer-XL's attention: content and distance, each with a learnt bias of the query.
class RelativeAttention final : public SelfAttention {
   public:
    RelativeAttention(Weights w, const ConformerConfig& c)
        : d_(c.d_model),
          n_head_(c.n_head),
          qkv_(w / "qkv", d_, 3 * d_, c.use_bias),
          pos_(w / "pos", d_, d_, false),
          out_(w / "out", d_, d_, c.use_bias),
          bias_u_(w.get_f32("pos_bias_u", {c.d_head(), n_head_})),
          bias_v_(w.get_f32("pos_bias_v", {c.d_head(), n_head_})) {}

    ggml_tensor* operator()(Graph& graph, ggml_tensor* normed, ggml_tensor* residual,
                            const ConformerBatch& batch, size_t layer) const override {
        ggml_tensor* qkv = qkv_(graph, normed);  // [3d, T·B]
        const auto part = [&](int64_t index) {
            return split_heads(graph, qkv, d_, n_head_, index, batch.n_frames, batch.batch);
        };
        ggml_tensor* y = relative_attention(graph, part(0), bias_u_, bias_v_, part(1), part(2),
                                            batch.distances[layer], batch.frames());
        return out_(graph, y, Activation::None, residual);
    }

    ggml_tensor* project_distances(Graph& graph, ggml_tensor* table) const override {
        return pos_(graph, table);
    }

   private:
    int64_t d_, n_head_;
    Linear qkv_, pos_, out_;
    ggml_tensor* bias_u_;  // [d_head, n_head]
    ggml_tensor* bias_v_;  // [d_head, n_head]
};

std::unique_ptr<SelfAttention> make_attention(Weights w, const ConformerConfig& c) {
    if (c.attention == AttentionKind::Rotary) return std::make_unique<RotaryAttention>(w, c);
    return std::make_unique<RelativeAttention>(w, c);
}

}  // namespace

ggml_tensor* SelfAttention::project_distances(Graph&, ggml_tensor*) const { return nullptr; }

std::vector<float> distance_table(int64_t n_frames, int64_t d) {
    std::vector<float> table;
    table.reserve(static_cast<size_t>((2 * n_frames - 1) * d));
    for (int64_t distance = n_frames - 1; distance > -n_frames; --distance) {
        for (int64_t i = 0; i < d; i += 2) {
            const double angle = static_cast<double>(distance) *
                                 std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(d));
            table.push_back(static_cast<float>(std::sin(angle)));
            table.push_back(static_cast<float>(std::cos(angle)));
        }
    }
    return table;
}

// --- blocks
// ---------------------------------------------------------------------------------------------------

MacaronFeedForward::MacaronFeedForward(Weights norm, Weights weights, const ConformerConfig& c)
    : norm_(norm, c.d_model),
      linear1_(weights / "linear1", c.d_model, c.d_ff, c.use_bias),
      linear2_(weights / "linear2", c.d_ff, c.d_model, c.use_bias) {}

ggml_tensor* MacaronFeedForward::operator()(Graph& graph, ggml_tensor* x) const {
    ggml_tensor* y = linear1_(graph, norm_(graph, x), Activation::Silu);
    return linear2_(graph, y, Activation::None, x, 0.5f);
}

ConvModule::ConvModule(Weights norm, Weights weights, const ConformerConfig& c)
    : norm_(norm, c.d_model),
      pointwise_conv1_(weights / "pointwise_conv1", c.d_model, 2 * c.d_model, c.use_bias),
      pointwise_conv2_(weights / "pointwise_conv2", c.d_model, c.d_model, c.use_bias),
      depthwise_conv_(weights / "depthwise_conv", c.d_model, c.conv_kernel) {
    if (c.conv_norm) conv_norm_ = std::make_unique<LayerNorm>(weights / "norm", c.d_model);
}

ggml_tensor* ConvModule::operator()(Graph& graph, ggml_tensor* x, const ConformerBatch& batch) const {
    ggml_tensor* y = convolve(graph, pointwise_conv1_(graph, norm_(graph, x)), batch);
    return pointwise_conv2_(graph, y, Activation::None, x);
}

ggml_tensor* ConvModule::convolve(Graph& graph, ggml_tensor* gated, const ConformerBatch& batch) const {
    ggml_context* ctx = graph.ctx();
    const int64_t d = gated->ne[0] / 2, n_rows = gated->ne[1];
    if (graph.cpu_kernels()) {
        ggml_tensor* y = kernels::gated_convolution(
            ctx, ggml_reshape_3d(ctx, gated, 2 * d, batch.n_frames, batch.batch), depthwise_conv_.weights(),
            conv_norm_ ? conv_norm_->parts() : kernels::ConvolutionNorm{}, batch.frames().lengths());
        return ggml_reshape_2d(ctx, y, d, n_rows);
    }
    const auto half = [&](int64_t index) {
        return ggml_view_2d(ctx, gated, d, n_rows, gated->nb[1],
                            static_cast<size_t>(index * d) * sizeof(float));
    };
    ggml_tensor* gate = ggml_sigmoid(ctx, ggml_cont(ctx, half(1)));
    ggml_tensor* x =
        ggml_reshape_3d(ctx, ggml_mul_inplace(ctx, gate, half(0)), d, batch.n_frames, batch.batch);
    x = depthwise_conv_(graph, batch.frames().zero_padding(graph, x));
    if (conv_norm_) x = (*conv_norm_)(graph, x);
    return ggml_reshape_2d(ctx, ggml_silu_inplace(ctx, x), d, n_rows);
}

ConformerBlock::ConformerBlock(Weights w, const ConformerConfig& c)
    : feed_forward1_(w / "norm_feed_forward1", w / "feed_forward1", c),
      attention_norm_(w / "norm_self_att", c.d_model),
      attention_(make_attention(w / "self_attn", c)),
      conv_(w / "norm_conv", w / "conv", c),
      feed_forward2_(w / "norm_feed_forward2", w / "feed_forward2", c),
      norm_out_(w / "norm_out", c.d_model) {}

ggml_tensor* ConformerBlock::operator()(Graph& graph, ggml_tensor* x, const ConformerBatch& batch,
                                        size_t layer) const {
    x = feed_forward1_(graph, x);
    x = (*attention_)(graph, attention_norm_(graph, x), x, batch, layer);
    x = conv_(graph, x, batch);
    x = feed_forward2_(graph, x);
    return norm_out_(graph, x);
}

ConformerEncoder::ConformerEncoder(Weights w, const ConformerConfig& c)
    : subsampling_(make_subsampling(w / "pre_encode", c)),
      scale_(c.xscaling ? std::sqrt(static_cast<float>(c.d_model)) : 1.0f) {
    for (int i = 0; i < c.n_layer; ++i) blocks_.emplace_back(w / "layers" / i, c);
}

ggml_tensor* ConformerEncoder::operator()(Graph& graph, ggml_tensor* mel, const ConformerBatch& batch) const {
    ggml_tensor* x = (*subsampling_)(graph, mel, batch);  // [d, T, B]
    x = graph.tap("subsampling", ggml_reshape_2d(graph.ctx(), x, x->ne[0], x->ne[1] * x->ne[2]));
    if (scale_ != 1.0f) x = ggml_scale(graph.ctx(), x, scale_);
    for (size_t i = 0; i < blocks_.size(); ++i) {
        x = graph.tap("blocks." + std::to_string(i), blocks_[i](graph, x, batch, i));
    }
    return graph.tap("output", x);
}

}  // namespace rustasr
