#pragma once
// Batches of sequences of different lengths: what lies behind a sequence's last frame is padding, and nothing
// computed from a frame that counts may depend on it.

#include <vector>

#include "core/graph.h"

namespace rustasr {

/// How many frames of each sequence count, at one frame rate. Empty when all of them do: nothing is masked.
class FrameMask {
   public:
    FrameMask() = default;
    /// Inputs of `graph` for [n_frames] × batch.
    FrameMask(Graph& graph, int64_t n_frames, int64_t batch);

    /// Fills the inputs after graph.finish().
    void set(const std::vector<int>& lengths) const;

    explicit operator bool() const { return lengths_ != nullptr; }
    /// x [n, T, B] with zeros in place of padding, for what looks at neighbouring frames. x is overwritten.
    ggml_tensor* zero_padding(Graph& graph, ggml_tensor* x) const;

    /// I32 [B], or null: what our own kernels read.
    ggml_tensor* lengths() const { return lengths_; }
    /// F16 [T, T, 1, B], or null: 0 for a key that counts, -inf for one that does not: what ggml's attention
    /// reads.
    ggml_tensor* keys() const { return keys_; }

   private:
    ggml_tensor* lengths_ = nullptr;
    ggml_tensor* keep_ = nullptr;  // F32 [1, T, B], 1 for a frame that counts
    ggml_tensor* keys_ = nullptr;
};

}  // namespace rustasr
