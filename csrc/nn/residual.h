#pragma once
// What convolutional speaker encoders are made of: residual blocks of ResNet (arXiv:1512.03385), with their
// norms in their weights, and statistics over time.

#include <functional>
#include <optional>

#include "core/graph.h"
#include "core/weights.h"
#include "nn/convolution.h"

namespace rustasr {

/// How a residual block changes its input: x [n_in, F, T, B] → [n_out, F / mel_stride, T / frame_stride, B].
struct ResidualShape {
    int64_t n_in, n_out;
    int mel_stride = 1, frame_stride = 1;
};

/// relu(conv2(relu(conv1(x))) + x) with kernels of 3×3; x goes through a 1×1 convolution (`shortcut`) where
/// the block changes it.
class ResidualBlock {
   public:
    ResidualBlock(Weights weights, const ResidualShape& shape);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;

   private:
    ExactConv2d conv1_, conv2_;
    std::optional<ExactConv2d> shortcut_;
};

/// Mean and deviation (of n - 1) over frames: x [C, T, B] → [2 C, B]. `floor` is added to the variance.
ggml_tensor* time_statistics(Graph& graph, ggml_tensor* x, float floor = 0);

/// `network` over features [n_mels, T, B] → [C, T', B]; on a CPU over each piece by itself: the places of one
/// piece stay in the second-level cache, those of a batch do not.
ggml_tensor* piece_by_piece(Graph& graph, ggml_tensor* features,
                            const std::function<ggml_tensor*(ggml_tensor*)>& network);

}  // namespace rustasr
