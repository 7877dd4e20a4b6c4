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

// `user`: zero frames before each sequence.
void run_pad_frames(ggml_tensor* dst, int ith, int nth, void* user) {
    const ggml_tensor* x = dst->src[0];
    const auto before = static_cast<int64_t>(reinterpret_cast<intptr_t>(user));
    const size_t frame = dst->nb[1];
    const int64_t share = dst->ne[1] * dst->ne[2];
    for (int64_t at = share * ith / nth, end = share * (ith + 1) / nth; at < end;) {
        // What is left of this sequence's zeros before, frames, or zeros behind.
        const int64_t b = at / dst->ne[1], t = at % dst->ne[1] - before;
        const int64_t last = t < 0 ? 0 : t < x->ne[1] ? x->ne[1] : dst->ne[1] - before;
        const int64_t n = std::min(last - t, end - at);
        char* to = static_cast<char*>(dst->data) + static_cast<size_t>(at) * frame;
        if (t >= 0 && t < x->ne[1]) {
            const auto from = static_cast<size_t>(b) * x->nb[2] + static_cast<size_t>(t) * x->nb[1];
            std::memcpy(to, static_cast<const char*>(x->data) + from, static_cast<size_t>(n) * frame);
        } else {
            std::memset(to, 0, static_cast<size_t>(n) * frame);
        }
        at += n;
    }
}

}  // namespace

ggml_tensor* pad_frames(ggml_context* ctx, ggml_tensor* x, int before, int after) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[3] == 1);
    return ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], before + x->ne[1] + after, x->ne[2], 1, &x, 1,
                          run_pad_frames, GGML_N_TASKS_MAX,
                          reinterpret_cast<void*>(static_cast<intptr_t>(before)));
}

ggml_tensor* zero_padding(ggml_context* ctx, ggml_tensor* x, ggml_tensor* lengths) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[3] == 1);
    GGML_ASSERT(lengths->type == GGML_TYPE_I32 && lengths->ne[0] == x->ne[2]);
    return ggml_custom_inplace(ctx, x, &lengths, 1, run_zero_padding, GGML_N_TASKS_MAX, nullptr);
}

}  // namespace rustasr::kernels
