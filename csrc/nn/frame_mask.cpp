#include "nn/frame_mask.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/padding.h"

namespace rustasr {

FrameMask::FrameMask(Graph& graph, int64_t n_frames, int64_t batch)
    : lengths_(graph.input(GGML_TYPE_I32, {batch})),
      keep_(graph.input(GGML_TYPE_F32, {1, n_frames, batch})),
      keys_(graph.input(GGML_TYPE_F16, {n_frames, n_frames, 1, batch})) {}

void FrameMask::set(const std::vector<int>& lengths) const {
    if (!lengths_) return;
    // The graph reads one or two of the three; what it does not read has no memory.
    if (lengths_->buffer) write(lengths_, std::vector<int32_t>(lengths.begin(), lengths.end()).data());
    const auto n_frames = static_cast<size_t>(keep_->ne[1]);
    if (keep_->buffer) {
        std::vector<float> keep;
        for (int length : lengths) {
            for (size_t t = 0; t < n_frames; ++t)
                keep.push_back(t < static_cast<size_t>(length) ? 1.0f : 0.0f);
        }
        write(keep_, keep.data());
    }
    if (keys_->buffer) {
        const ggml_fp16_t hidden = ggml_fp32_to_fp16(-std::numeric_limits<float>::infinity());
        std::vector<ggml_fp16_t> keys;
        keys.reserve(n_frames * n_frames * lengths.size());
        for (int length : lengths) {
            for (size_t i = 0; i < n_frames * n_frames; ++i)
                keys.push_back(i % n_frames < static_cast<size_t>(length) ? ggml_fp16_t{0} : hidden);
        }
        write(keys_, keys.data());
    }
}

ggml_tensor* FrameMask::zero_padding(Graph& graph, ggml_tensor* x) const {
    if (!lengths_) return x;
    GGML_ASSERT(x->ne[1] == keep_->ne[1] && x->ne[2] == keep_->ne[2]);
    if (graph.cpu_kernels()) return kernels::zero_padding(graph.ctx(), x, lengths_);
    return ggml_mul_inplace(graph.ctx(), x, keep_);
}

}  // namespace rustasr
