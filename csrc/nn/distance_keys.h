#pragma once
// What relative attention makes of distances: linear_pos of their sines, per block. It depends on the weights
// alone, so it is computed once and kept on the device; a batch of T frames looks at the middle 2T − 1 rows.

#include <vector>

#include "core/backend.h"
#include "nn/conformer.h"

namespace rustasr {

class DistanceKeys {
   public:
    /// `type` of the kept keys: F32 or F16. The blocks must have relative positions.
    DistanceKeys(Backend& backend, const ConformerEncoder& encoder, const ConformerConfig& config,
                 ggml_type type);

    /// For a graph of n_frames: per block [d_head, 2T − 1, n_head]. Graphs of earlier calls must be gone when
    /// n_frames is above every earlier one: the tensors that they read may be replaced.
    std::vector<ggml_tensor*> of(Graph& graph, int64_t n_frames);

   private:
    void reserve(int64_t n_frames);
    void fill_keys();

    Backend& backend_;
    const ConformerEncoder& encoder_;
    int64_t d_, n_head_;
    ggml_type type_;
    int64_t capacity_ = 0;  // frames
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;
    ggml_tensor* sines_ = nullptr;  // [d, 2·capacity − 1]
    std::vector<ggml_tensor*>
        keys_;  // per block [d, 2·capacity − 1]; none where windows are too long to keep them
};

}  // namespace rustasr
