#pragma once
// Operands of a kernel and the graph of one operation over them, on the CPU.

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace rustasr::test {

inline std::vector<float> random_values(size_t n, float mean, float spread, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> x(n);
    for (float& v : x) v = mean + spread * normal(random);
    return x;
}

class KernelGraph {
   public:
    KernelGraph() : backend_(ggml_backend_cpu_init()) {}
    KernelGraph(const KernelGraph&) = delete;
    ~KernelGraph() {
        for (ggml_backend_buffer_t buffer : buffers_) ggml_backend_buffer_free(buffer);
        for (ggml_context* context : contexts_) ggml_free(context);
        ggml_backend_free(backend_);
    }

    template <class T>
    ggml_tensor* tensor(ggml_type type, std::initializer_list<int64_t> shape, const std::vector<T>& values) {
        ggml_context* context = ggml_init({ggml_tensor_overhead(), nullptr, true});
        ggml_tensor* t = ggml_new_tensor(context, type, static_cast<int>(shape.size()), shape.begin());
        contexts_.push_back(context);
        buffers_.push_back(ggml_backend_alloc_ctx_tensors(context, backend_));
        GGML_ASSERT(values.size() * sizeof(T) == ggml_nbytes(t));
        memcpy(t->data, values.data(), ggml_nbytes(t));
        return t;
    }
    ggml_tensor* floats(std::initializer_list<int64_t> shape, const std::vector<float>& values) {
        return tensor(GGML_TYPE_F32, shape, values);
    }
    ggml_tensor* integers(const std::vector<int32_t>& values) {
        return tensor(GGML_TYPE_I32, {static_cast<int64_t>(values.size())}, values);
    }

    /// The values of build(context), a contiguous F32 tensor; what is not written is NaN.
    template <class Build>
    std::vector<float> run(int threads, const Build& build) const {
        ggml_context* context = ggml_init({1 << 20, nullptr, true});
        ggml_tensor* y = build(context);
        ggml_cgraph* graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, y);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend_);
        std::vector<float> result(static_cast<size_t>(ggml_nelements(y)),
                                  std::numeric_limits<float>::quiet_NaN());
        memcpy(y->data, result.data(), result.size() * sizeof(float));
        ggml_backend_cpu_set_n_threads(backend_, threads);
        ggml_backend_graph_compute(backend_, graph);
        memcpy(result.data(), y->data, result.size() * sizeof(float));
        ggml_backend_buffer_free(buffer);
        ggml_free(context);
        return result;
    }

   private:
    ggml_backend_t backend_;
    std::vector<ggml_context*> contexts_;
    std::vector<ggml_backend_buffer_t> buffers_;
};

}  // namespace rustasr::test
