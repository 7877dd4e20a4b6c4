#include "nn/convolution.h"

#include "kernels/dense_convolution.h"
#include "kernels/exact_convolution.h"

namespace rustasr {
namespace {

// kernel [C, mel taps, time taps], x [C, F, T, B], strides and paddings in mels and in frames.
ggml_tensor* depthwise(Graph& graph, ggml_tensor* kernel, ggml_tensor* bias, ggml_tensor* x, int stride,
                       int mel_padding, int time_padding) {
    ggml_context* ctx = graph.ctx();
    if (x->ne[1] == 1 && x->ne[2] == 1) {  // ggml would take a single place for its other layout
        const size_t centre = static_cast<size_t>(kernel->ne[1] / 2) * kernel->nb[1] +
                              static_cast<size_t>(kernel->ne[2] / 2) * kernel->nb[2];
        return ggml_add_inplace(ctx, ggml_mul(ctx, x, ggml_view_1d(ctx, kernel, kernel->ne[0], centre)),
                                bias);
    }
    // ggml names the dimensions [width, height, 1, C] and [width, height, C, B] and takes channels that are
    // neighbours in memory as such a view.
    ggml_tensor* taps = ggml_permute(
        ctx, ggml_reshape_4d(ctx, kernel, kernel->ne[0], 1, kernel->ne[1], kernel->ne[2]), 3, 2, 0, 1);
    ggml_tensor* y = ggml_conv_2d_dw_direct(ctx, taps, ggml_permute(ctx, x, 2, 0, 1, 3), stride, stride,
                                            mel_padding, time_padding, 1, 1);
    return ggml_add_inplace(ctx, ggml_permute(ctx, y, 1, 2, 0, 3), bias);  // [C, F', T', B]
}

// What the taps of every place see, the frame taps outermost: [C, F, T, B] → [C * taps, F', T', B].
ggml_tensor* patches(ggml_context* ctx, ggml_tensor* x, const ConvShape& shape) {
    const int mel_padding = shape.mel_taps / 2, frame_padding = shape.frame_taps / 2 * shape.frame_dilation;
    const int64_t n_mels = (x->ne[1] - 1) / shape.mel_stride + 1;
    const int64_t n_frames = (x->ne[2] - 1) / shape.frame_stride + 1;
    ggml_tensor* padded =
        ggml_pad_ext(ctx, x, 0, 0, mel_padding, mel_padding, frame_padding, frame_padding, 0, 0);
    // The mel taps of a place are neighbours in memory, so those of one frame tap are a view.
    ggml_tensor* rows = nullptr;
    for (int tap = 0; tap < shape.frame_taps; ++tap) {
        ggml_tensor* row =
            ggml_view_4d(ctx, padded, shape.n_in, n_mels, n_frames, x->ne[3],
                         static_cast<size_t>(shape.mel_stride) * padded->nb[1],
                         static_cast<size_t>(shape.frame_stride) * padded->nb[2], padded->nb[3],
                         static_cast<size_t>(tap * shape.frame_dilation) * padded->nb[2]);
        row->ne[0] = shape.n_in * shape.mel_taps;  // ggml refuses to make a view of rows that overlap
        row = ggml_cont(ctx, row);
        rows = rows ? ggml_concat(ctx, rows, row, 0) : row;
    }
    GGML_ASSERT(rows);  // a kernel has a tap
    return rows;
}

}  // namespace

ggml_tensor* zero_padding(Graph& graph, ggml_tensor* x, const FrameMask& frames) {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* flat = ggml_reshape_3d(ctx, x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]);
    return ggml_reshape_4d(ctx, frames.zero_padding(graph, flat), x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

InputConv2d::InputConv2d(Weights weights, int64_t n_out, int kernel)
    : kernel_(weights.get_f32("kernel", {n_out, kernel, kernel})), bias_(weights.get_f32("bias", {n_out})) {}

ggml_tensor* InputConv2d::operator()(Graph& graph, ggml_tensor* x, Activation activation) const {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels()) return kernels::input_convolution(ctx, x, weights(), activation);
    const int64_t n_out = kernel_->ne[0], n_taps = kernel_->ne[1] * kernel_->ne[2];
    const int padding = static_cast<int>(kernel_->ne[1] / 2);
    ggml_tensor* taps = ggml_cont(ctx, ggml_transpose(ctx, ggml_reshape_2d(ctx, kernel_, n_out, n_taps)));
    ggml_tensor* shape = ggml_reshape_4d(ctx, kernel_, kernel_->ne[1], kernel_->ne[2], 1, n_out);
    ggml_tensor* image = ggml_reshape_4d(ctx, x, x->ne[0], x->ne[1], 1, x->ne[2]);
    ggml_tensor* rows = ggml_im2col(ctx, shape, image, 2, 2, padding, padding, 1, 1, true, GGML_TYPE_F32);
    // Zeros up to whole vectors: ggml's fast products do not take rows of nine values.
    const int fill = static_cast<int>((16 - n_taps % 16) % 16);
    ggml_tensor* y =
        ggml_mul_mat(ctx, ggml_pad(ctx, taps, fill, 0, 0, 0), ggml_pad(ctx, rows, fill, 0, 0, 0));
    return activate(graph, y, bias_, activation);  // [C, F', T', B]
}

DepthwiseConv2d::DepthwiseConv2d(Weights weights, int64_t n_channels, int kernel)
    : kernel_(weights.get_f32("kernel", {n_channels, kernel, kernel})),
      bias_(weights.get_f32("bias", {n_channels})) {}

ggml_tensor* DepthwiseConv2d::operator()(Graph& graph, ggml_tensor* x, const FrameMask& frames) const {
    if (graph.cpu_kernels())
        return kernels::depthwise_convolution(graph.ctx(), x, {kernel_, bias_}, frames.lengths());
    const int padding = static_cast<int>(kernel_->ne[1] / 2);
    return depthwise(graph, kernel_, bias_, zero_padding(graph, x, frames), 2, padding, padding);
}

ggml_tensor* DepthwiseConv2d::after(const InputConv2d& input, Graph& graph, ggml_tensor* x,
                                    const FrameMask& frames) const {
    if (!graph.cpu_kernels()) return (*this)(graph, input(graph, x, Activation::Relu), frames);
    return kernels::input_depthwise_convolution(graph.ctx(), x, input.weights(), Activation::Relu,
                                                {kernel_, bias_}, frames.lengths());
}

Conv2d::Conv2d(Weights weights, int64_t n_in, int64_t n_out, int kernel)
    : linear_(weights, n_in * kernel * kernel, n_out), kernel_(kernel) {}

ggml_tensor* Conv2d::operator()(Graph& graph, ggml_tensor* x, Activation activation) const {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels()) {
        const MatMulWeight& w = linear_.weight();
        if (!w.packed || x->ne[0] % 32 != 0)
            return linear_(graph, kernels::convolution_patches(ctx, x, kernel_), activation);
        return kernels::q8_convolution(ctx, w.tensor, w.n, kernels::q8_quantize(ctx, x), kernel_,
                                       linear_.bias(), activation, *w.packed);
    }
    const ConvShape shape{x->ne[0], linear_.weight().n, kernel_, kernel_, 2, 2};
    return linear_(graph, patches(ctx, x, shape), activation);
}

ggml_tensor* PointwiseConv2d::operator()(Graph& graph, ggml_tensor* x, Activation activation) const {
    return linear_(graph, x, activation);
}

DepthwiseConv1d::DepthwiseConv1d(Weights weights, int64_t n_channels, int kernel)
    : kernel_(weights.get_f32("kernel", {n_channels, 1, kernel})),
      bias_(weights.get_f32("bias", {n_channels})) {}

ggml_tensor* DepthwiseConv1d::operator()(Graph& graph, ggml_tensor* x) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n_channels = x->ne[0], n_frames = x->ne[1], batch = x->ne[2];
    const int padding = static_cast<int>(kernel_->ne[2] / 2);
    // Frames as the width: as the height of an image one mel wide ggml would not see the channels' layout.
    ggml_tensor* taps = ggml_reshape_3d(ctx, kernel_, n_channels, kernel_->ne[2], 1);
    ggml_tensor* y =
        depthwise(graph, taps, bias_, ggml_reshape_4d(ctx, x, n_channels, n_frames, 1, batch), 1, padding, 0);
    return ggml_reshape_3d(ctx, y, n_channels, n_frames, batch);
}

ExactConv2d::ExactConv2d(Weights weights, const ConvShape& shape, bool with_bias)
    : shape_(shape),
      kernel_(weights.get_f32("kernel", {shape.n_out, shape.n_in, shape.mel_taps, shape.frame_taps})),
      bias_(with_bias ? weights.get_f32("bias", {shape.n_out}) : nullptr) {}

ggml_tensor* ExactConv2d::operator()(Graph& graph, ggml_tensor* x, Activation activation,
                                     ggml_tensor* residual) const {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels() && kernels::exact_convolution_supported(shape_.n_out)) {
        return kernels::exact_convolution(
            ctx, x, {kernel_, bias_, shape_.mel_stride, shape_.frame_stride, shape_.frame_dilation}, residual,
            activation);
    }
    const int64_t n_taps = shape_.n_in * shape_.mel_taps * shape_.frame_taps;
    ggml_tensor* taps =
        ggml_cont(ctx, ggml_transpose(ctx, ggml_reshape_2d(ctx, kernel_, shape_.n_out, n_taps)));
    ggml_tensor* rows = patches(ctx, x, shape_);  // [taps, F', T', B]
    const int64_t n_mels = rows->ne[1], n_frames = rows->ne[2], batch = rows->ne[3];
    ggml_tensor* y = ggml_mul_mat(ctx, taps, ggml_reshape_2d(ctx, rows, n_taps, n_mels * n_frames * batch));
    y = ggml_reshape_4d(ctx, y, shape_.n_out, n_mels, n_frames, batch);
    if (residual) y = ggml_add_inplace(ctx, y, residual);
    return activate(graph, y, bias_, activation);
}

}  // namespace rustasr
