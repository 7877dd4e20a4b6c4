#include "nn/residual.h"

namespace rustasr {

ResidualBlock::ResidualBlock(Weights weights, const ResidualShape& shape)
    : conv1_(weights / "conv1", {shape.n_in, shape.n_out, 3, 3, shape.mel_stride, shape.frame_stride}),
      conv2_(weights / "conv2", {shape.n_out, shape.n_out, 3, 3}) {
    if (shape.n_in == shape.n_out && shape.mel_stride == 1 && shape.frame_stride == 1) return;
    shortcut_.emplace(weights / "shortcut",
                      ConvShape{shape.n_in, shape.n_out, 1, 1, shape.mel_stride, shape.frame_stride});
}

ggml_tensor* ResidualBlock::operator()(Graph& graph, ggml_tensor* x) const {
    ggml_tensor* residual = shortcut_ ? (*shortcut_)(graph, x, Activation::None) : x;
    return conv2_(graph, conv1_(graph, x, Activation::Relu), Activation::Relu, residual);
}

ggml_tensor* time_statistics(Graph& graph, ggml_tensor* x, float floor) {
    ggml_context* ctx = graph.ctx();
    const auto n_frames = static_cast<float>(x->ne[1]);
    ggml_tensor* by_channel = ggml_cont(ctx, ggml_transpose(ctx, x));  // [T, C, B]
    ggml_tensor* mean = ggml_mean(ctx, by_channel);                    // [1, C, B]
    ggml_tensor* square = ggml_sum_rows(ctx, ggml_sqr(ctx, ggml_sub(ctx, by_channel, mean)));
    ggml_tensor* deviation = ggml_sqrt(ctx, ggml_scale_bias(ctx, square, 1 / (n_frames - 1), floor));
    return ggml_reshape_2d(ctx, ggml_concat(ctx, mean, deviation, 1), 2 * x->ne[0], x->ne[2]);
}

ggml_tensor* piece_by_piece(Graph& graph, ggml_tensor* features,
                            const std::function<ggml_tensor*(ggml_tensor*)>& network) {
    if (!graph.on_cpu()) return network(features);
    ggml_context* ctx = graph.ctx();
    ggml_tensor* all = nullptr;
    for (int64_t b = 0; b < features->ne[2]; ++b) {
        ggml_tensor* piece = ggml_view_2d(ctx, features, features->ne[0], features->ne[1], features->nb[1],
                                          static_cast<size_t>(b) * features->nb[2]);
        ggml_tensor* x = network(piece);
        all = all ? ggml_concat(ctx, all, x, 2) : x;
    }
    return all;
}

}  // namespace rustasr
