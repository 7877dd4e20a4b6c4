#include "kernels/context_mask.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ggml.h"

namespace rustasr::kernels {
namespace {

constexpr int kSegment = 8, kFirst = 9;  // behind what ggml keeps of a custom operation

void add_rows(const float* rows, int64_t begin, int64_t end, int64_t width, double* sums) {
    for (int64_t t = begin; t < end; ++t) {
        for (int64_t c = 0; c < width; ++c) sums[c] += rows[t * width + c];
    }
}

void run_contexts(ggml_tensor* y, int ith, int nth, void*) {
    const ggml_tensor* x = y->src[0];
    const int64_t width = x->ne[0], n_frames = x->ne[1], segment = y->op_params[kSegment];
    std::vector<double> sums(static_cast<size_t>(width)), total(static_cast<size_t>(width));
    for (int64_t b = ith; b < x->ne[2]; b += nth) {
        const float* rows = static_cast<const float*>(x->data) + b * n_frames * width;
        float* out = static_cast<float*>(y->data) + b * y->ne[1] * width;
        std::fill(total.begin(), total.end(), 0.0);
        for (int64_t s = 0; s < y->ne[1]; ++s) {
            const int64_t begin = s * segment, end = std::min(n_frames, begin + segment);
            std::fill(sums.begin(), sums.end(), 0.0);
            add_rows(rows, begin, end, width, sums.data());
            for (int64_t c = 0; c < width; ++c) {
                const auto i = static_cast<size_t>(c);
                out[s * width + c] = static_cast<float>(sums[i] / static_cast<double>(end - begin));
                total[i] += sums[i];
            }
        }
        for (int64_t s = 0; s < y->ne[1]; ++s) {
            for (int64_t c = 0; c < width; ++c) {
                out[s * width + c] +=
                    static_cast<float>(total[static_cast<size_t>(c)] / static_cast<double>(n_frames));
            }
        }
    }
}

void run_append(ggml_tensor* buffer, int ith, int nth, void*) {
    const ggml_tensor *y = buffer->src[1], *mask = buffer->src[2];
    const int64_t n = y->ne[0], n_frames = y->ne[1], segment = buffer->op_params[kSegment];
    const int64_t rows = n_frames * y->ne[2];
    std::vector<float> gates(static_cast<size_t>(n), 1.0f);
    int64_t of = -1;  // the segment that `gates` are of
    for (int64_t row = rows * ith / nth; row < rows * (ith + 1) / nth; ++row) {
        const float* from = static_cast<const float*>(y->data) + row * n;
        float* to = static_cast<float*>(buffer->data) + row * buffer->ne[0] + buffer->op_params[kFirst];
        if (!mask) {
            std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
            continue;
        }
        const int64_t at = row / n_frames * mask->ne[1] + row % n_frames / segment;
        if (at != of) {
            const float* logits = static_cast<const float*>(mask->data) + at * n;
            for (int64_t c = 0; c < n; ++c) gates[static_cast<size_t>(c)] = 1 / (1 + std::exp(-logits[c]));
            of = at;
        }
        for (int64_t c = 0; c < n; ++c) to[c] = from[c] * gates[static_cast<size_t>(c)];
    }
}

bool is_plain(const ggml_tensor* t) { return t->type == GGML_TYPE_F32 && ggml_is_contiguous(t); }

}  // namespace

ggml_tensor* segment_contexts(ggml_context* ctx, ggml_tensor* x, int64_t segment) {
    GGML_ASSERT(is_plain(x) && segment > 0);
    ggml_tensor* y = ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], (x->ne[1] - 1) / segment + 1, x->ne[2], 1,
                                    &x, 1, run_contexts, GGML_N_TASKS_MAX, nullptr);
    y->op_params[kSegment] = static_cast<int32_t>(segment);
    return y;
}

ggml_tensor* append_masked(ggml_context* ctx, ggml_tensor* buffer, ggml_tensor* y, ggml_tensor* mask,
                           int64_t segment, int64_t first) {
    GGML_ASSERT(is_plain(buffer) && is_plain(y) && first + y->ne[0] <= buffer->ne[0]);
    GGML_ASSERT(buffer->ne[1] == y->ne[1] && buffer->ne[2] == y->ne[2]);
    GGML_ASSERT(!mask || (is_plain(mask) && mask->ne[0] == y->ne[0] && mask->ne[1] * segment >= y->ne[1] &&
                          mask->ne[2] == y->ne[2]));
    ggml_tensor* args[2] = {y, mask};
    ggml_tensor* result =
        ggml_custom_inplace(ctx, buffer, args, mask ? 2 : 1, run_append, GGML_N_TASKS_MAX, nullptr);
    result->op_params[kSegment] = static_cast<int32_t>(segment);
    result->op_params[kFirst] = static_cast<int32_t>(first);
    return result;
}

}  // namespace rustasr::kernels
