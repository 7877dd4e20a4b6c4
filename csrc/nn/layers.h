#pragma once
// The layers that every network here is made of: constructed from Weights, called on a tensor. Each adds its
// operations to a Graph; where our own CPU kernels apply they are used, elsewhere ggml's operations.
// Shapes are in ggml's order, the fastest dimension first.

#include "core/graph.h"
#include "core/weights.h"
#include "kernels/convolution.h"
#include "kernels/q8_matmul.h"

namespace rustasr {

using kernels::Activation;
using kernels::Rounding;

/// activation(x + bias); bias [n] or null. x is overwritten where that saves memory.
ggml_tensor* activate(Graph& graph, ggml_tensor* x, ggml_tensor* bias, Activation activation);

/// x [n, T, B] with zeros before and after the frames of each sequence: [n, before + T + after, B].
ggml_tensor* pad_frames(Graph& graph, ggml_tensor* x, int before, int after);

/// Activations [k, …] made ready for several Linears that read the same input.
struct LinearInput {
    ggml_tensor* plain;                // F32
    ggml_tensor* quantized = nullptr;  // made by the first packed Linear that needs it
};

/// y [n, …] = scale · activation(W x + b) + residual; without a residual the scale is 1. `rounding` is of x
/// where our Q8_0 product applies; Linears that share a LinearInput have the same.
class Linear {
   public:
    Linear() = default;
    Linear(Weights weights, int64_t k, int64_t n, bool with_bias = true, Rounding rounding = Rounding::Once);
    /// A matrix that another module owns under `name` (tied embeddings): no bias.
    static Linear tied(Weights weights, const std::string& name, int64_t k, int64_t n);

    ggml_tensor* operator()(Graph& graph, LinearInput& x, Activation activation = Activation::None,
                            ggml_tensor* residual = nullptr, float scale = 1.0f) const;
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x, Activation activation = Activation::None,
                            ggml_tensor* residual = nullptr, float scale = 1.0f) const {
        LinearInput input{x};
        return (*this)(graph, input, activation, residual, scale);
    }
    const MatMulWeight& weight() const { return weight_; }
    ggml_tensor* bias() const { return bias_; }  // [n] or null
    ggml_type type() const {
        if (!weight_.packed) return weight_.tensor->type;
        return *weight_.packed == kernels::Quants::Q4_0 ? GGML_TYPE_Q4_0 : GGML_TYPE_Q8_0;
    }

   private:
    MatMulWeight weight_;
    ggml_tensor* bias_ = nullptr;  // [n]
    Rounding rounding_ = Rounding::Once;
};

class LayerNorm {
   public:
    LayerNorm() = default;
    LayerNorm(Weights weights, int64_t d, float eps = 1e-5f);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;
    /// For the kernels that normalise on their way.
    kernels::ConvolutionNorm parts() const { return {weight_, bias_, eps_}; }

   private:
    ggml_tensor* weight_ = nullptr;
    ggml_tensor* bias_ = nullptr;
    float eps_ = 0;
};

/// x / sqrt(mean(x²) + eps) · weight, over dimension 0; any view whose rows are contiguous.
class RmsNorm {
   public:
    RmsNorm() = default;
    RmsNorm(Weights weights, int64_t d, float eps) : weight_(weights.get_f32("weight", {d})), eps_(eps) {}
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;
    /// For the kernels that normalise on their way.
    ggml_tensor* weight() const { return weight_; }  // [d]

   private:
    ggml_tensor* weight_ = nullptr;
    float eps_ = 0;
};

/// Rows of a table by id.
class Embedding {
   public:
    Embedding() = default;
    Embedding(Weights weights, int64_t d, int64_t n);
    /// The same table as `output` (Linear::tied), whose memory serves for both where its layout allows.
    Embedding(Weights weights, int64_t d, int64_t n, const Linear& output);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* ids) const;  // I32 [T] → [d, T]

   private:
    MatMulWeight table_;  // [d, n]
};

/// Convolution over time, the input already padded with what lies outside (zeros).
/// The taps of a frame are neighbours in memory, so a row of the product is a view, not a copy (im2col); but
/// many short sequences are laid out to be one product.
class Conv1d {
   public:
    Conv1d() = default;
    Conv1d(Weights weights, int64_t n_in, int64_t n_out, int kernel, int stride);
    /// padded [n_in, T_padded, B] → [n_out, (T_padded − kernel)/stride + 1, B]
    ggml_tensor* operator()(Graph& graph, ggml_tensor* padded, Activation activation) const;

   private:
    Linear linear_;
    int64_t n_in_ = 0;
    int kernel_ = 1;
    int stride_ = 1;
};

}  // namespace rustasr
