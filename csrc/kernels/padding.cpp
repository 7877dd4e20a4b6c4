#include "kernels/padding.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace rustasr::kernels {
namespace {

void run_zero_padding(ggml_tensor* dst, int ith, int nth, void*) {
    const auto* lengths = static_cast<const int32_t*>(dst->src[1]->data);
    const int64_t n_frames = dst->ne[1], share = n_frames * dst->ne[2];
    for (int64_t b = 0; b < dst->ne[2]; ++b) {
        // Frames of this sequence's padding that fall into this thread's share of all frames.
        const int64_t begin = std::max(b * n_frames + lengths[b], share * ith / nth);
        const int64_t end = std::min((b + 1) * n_frames, share * (ith + 1) / nth);
        if (begin >= end) continue;
        std::memset(static_cast<char*>(dst->data) + static_cast<size_t>(begin) * dst->nb[1], 0,
                    static_cast<size_t>(end - begin) * dst->nb[1]);
    }
}

}  // namespace

ggml_tensor* zero_padding(ggml_context* ctx, ggml_tensor* x, ggml_tensor* lengths) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[3] == 1);
    GGML_ASSERT(lengths->type == GGML_TYPE_I32 && lengths->ne[0] == x->ne[2]);
    return ggml_custom_inplace(ctx, x, &lengths, 1, run_zero_padding, GGML_N_TASKS_MAX, nullptr);
}

}  // namespace rustasr::kernels
