#pragma once
// The conformer encoder (Gulati et al. 2020, arXiv:2005.08100) of GigaAM and Parakeet: strided convolutions
// over the log mel, then pre-norm macaron blocks. Attention and subsampling differ between families; the
// model file says which. Shapes: x [d, T·B], rows of one sequence after those of the other.

#include <memory>
#include <vector>

#include "core/gguf.h"
#include "nn/attention.h"
#include "nn/convolution.h"
#include "nn/frame_mask.h"
#include "nn/layers.h"

namespace rustasr {

enum class AttentionKind { Rotary, RelativePosition };
enum class SubsamplingKind { Conv1d, Conv2d, DepthwiseStriding };

struct ConformerConfig {
    int n_mels, n_layer, d_model, n_head, d_ff;
    int conv_kernel;  // frames
    bool use_bias;    // of the linears; depthwise convolutions, norms and the subsampling have biases always
    bool xscaling;    // the subsampling's output times √d_model
    bool conv_norm;   // LayerNorm after the depthwise convolution; a BatchNorm is folded into it
    AttentionKind attention;
    float rope_base;  // rotary only
    SubsamplingKind subsampling;
    int subsampling_factor, subsampling_kernel, subsampling_channels;

    /// Throws ModelFileError that names the key.
    static ConformerConfig read(const GgufFile& file);

    int d_head() const { return d_model / n_head; }
    int n_stages() const;  // convolutions of stride 2: subsampling_factor = 2^n_stages
    /// Encoder frames of n mel frames.
    int64_t n_frames(int64_t n_mel_frames) const;
};

/// What the blocks of one graph read besides their input.
struct ConformerBatch {
    int64_t n_frames;  // of the longest sequence, after the subsampling
    int64_t batch;
    std::vector<FrameMask> masks;  // of the mel, then after each stage; empty ones where nothing is padded
    ggml_tensor* positions = nullptr;     // I32 [T·B], of the frame in its sequence: rotary only
    std::vector<ggml_tensor*> distances;  // per block [d_head, 2T − 1, n_head]: relative positions only

    const FrameMask& frames() const { return masks.back(); }
};

class Subsampling {
   public:
    virtual ~Subsampling() = default;
    /// Frames of zeros that mel must have on each side.
    virtual int padding() const { return 0; }
    /// mel [n_mels, padding + T_mel + padding, B] → [d, T, B]
    virtual ggml_tensor* operator()(Graph& graph, ggml_tensor* mel, const ConformerBatch& batch) const = 0;
};

class SelfAttention {
   public:
    virtual ~SelfAttention() = default;
    /// normed, residual [d, T·B]; `layer` picks what the batch holds per block.
    virtual ggml_tensor* operator()(Graph& graph, ggml_tensor* normed, ggml_tensor* residual,
                                    const ConformerBatch& batch, size_t layer) const = 0;
    /// Relative positions only: table [d, rows] of sines (distance_table) → [d, rows] as keys see it.
    virtual ggml_tensor* project_distances(Graph& graph, ggml_tensor* table) const;
};

/// The sines and cosines of distances T − 1 … −(T − 1): [2T − 1, d] row by row (Dai et al. 2019, eq. 5).
std::vector<float> distance_table(int64_t n_frames, int64_t d);

/// x + ½ linear2(silu(linear1(norm(x)))).
class MacaronFeedForward {
   public:
    MacaronFeedForward(Weights norm, Weights weights, const ConformerConfig& c);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;
    ggml_type weight_type() const { return linear1_.type(); }

   private:
    LayerNorm norm_;
    Linear linear1_, linear2_;
};

/// x + pointwise2(silu(norm(depthwise(glu(pointwise1(norm(x))))))).
class ConvModule {
   public:
    ConvModule(Weights norm, Weights weights, const ConformerConfig& c);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, const ConformerBatch& batch) const;

   private:
    /// gated [2d, T·B] → silu(norm(depthwise(glu(gated)))) [d, T·B]
    ggml_tensor* convolve(Graph& graph, ggml_tensor* gated, const ConformerBatch& batch) const;

    LayerNorm norm_;
    Linear pointwise_conv1_, pointwise_conv2_;
    DepthwiseConv1d depthwise_conv_;
    std::unique_ptr<LayerNorm> conv_norm_;
};

class ConformerBlock {
   public:
    ConformerBlock(Weights weights, const ConformerConfig& c);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, const ConformerBatch& batch, size_t layer) const;
    const SelfAttention& attention() const { return *attention_; }
    ggml_type weight_type() const { return feed_forward1_.weight_type(); }

   private:
    MacaronFeedForward feed_forward1_;
    LayerNorm attention_norm_;
    std::unique_ptr<SelfAttention> attention_;
    ConvModule conv_;
    MacaronFeedForward feed_forward2_;
    LayerNorm norm_out_;
};

class ConformerEncoder {
   public:
    ConformerEncoder(Weights weights, const ConformerConfig& c);
    /// mel as the subsampling takes it → [d, T·B]. Taps: "subsampling", "blocks.0" …, "output".
    ggml_tensor* operator()(Graph& graph, ggml_tensor* mel, const ConformerBatch& batch) const;

    const Subsampling& subsampling() const { return *subsampling_; }
    const std::vector<ConformerBlock>& blocks() const { return blocks_; }

   private:
    std::unique_ptr<Subsampling> subsampling_;
    float scale_;  // of the subsampling's output
    std::vector<ConformerBlock> blocks_;
};

}  // namespace rustasr
