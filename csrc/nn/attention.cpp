#include "nn/attention.h"

#include <cmath>

#include "kernels/attention.h"

namespace rustasr {

ggml_tensor* split_heads(Graph& graph, ggml_tensor* x, int64_t d, int64_t n_head, int64_t index,
                         int64_t n_frames, int64_t batch) {
    GGML_ASSERT(d % n_head == 0 && x->ne[0] >= (index + 1) * d && ggml_nrows(x) == n_frames * batch);
    const size_t element = ggml_element_size(x), head = static_cast<size_t>(d / n_head) * element;
    return ggml_view_4d(graph.ctx(), x, d / n_head, n_frames, n_head, batch, x->nb[1], head,
                        x->nb[1] * static_cast<size_t>(n_frames), static_cast<size_t>(index * d) * element);
}

ggml_tensor* attention(Graph& graph, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                       ggml_tensor* lengths) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(q->ne[0]));
    ggml_tensor* y;
    if (graph.cpu_kernels() && kernels::attention_supported(q->ne[0], k->type)) {
        y = kernels::attention(graph.ctx(), q, k, v, mask, scale, lengths, graph.precision());
    } else {
        if (!graph.on_cpu() && k->type == GGML_TYPE_F32) {  // GPUs take F16 keys and values
            k = ggml_cast(graph.ctx(), k, GGML_TYPE_F16);
            v = ggml_cast(graph.ctx(), v, GGML_TYPE_F16);
        }
        y = ggml_flash_attn_ext(graph.ctx(), q, k, v, mask, scale, 0.0f, 0.0f);
    }
    return ggml_reshape_2d(graph.ctx(), y, q->ne[0] * q->ne[2], q->ne[1] * q->ne[3]);
}

}  // namespace rustasr
