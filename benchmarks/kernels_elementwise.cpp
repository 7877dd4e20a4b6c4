// The elementwise kernels of every usable form beside ggml's operations and plain loops: microseconds of
// processor time, one thread, best of many.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "kernels/elementwise_form.h"

namespace {

using namespace rustasr::kernels;

void report(const std::string& name, const std::function<void()>& work) {
    double best = 1e9;
    for (int round = 0; round < 60; round++) {
        const int repeats = 10;
        const std::clock_t begin = std::clock();
        for (int i = 0; i < repeats; i++) work();
        best = std::min(best, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC / repeats);
    }
    std::printf("%-50s %10.1f us\n", name.c_str(), best * 1e6);
    std::fflush(stdout);
}

void report_graph(ggml_backend_t backend, const std::string& name, int64_t n, int64_t rows,
                  const std::function<ggml_tensor*(ggml_context*, ggml_tensor*, ggml_tensor*)>& build) {
    ggml_context* c = ggml_init({1 << 20, nullptr, true});
    ggml_tensor* x = ggml_new_tensor_2d(c, GGML_TYPE_F32, n, rows);
    ggml_tensor* vector = ggml_new_tensor_1d(c, GGML_TYPE_F32, n);
    ggml_cgraph* graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, build(c, x, vector));
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (ggml_tensor* t : {x, vector}) {
        for (int64_t i = 0; i < ggml_nelements(t); i++) static_cast<float*>(t->data)[i] = normal(random);
    }
    report(name, [&] { ggml_backend_graph_compute(backend, graph); });
    ggml_backend_buffer_free(buffer);
    ggml_free(c);
}

}  // namespace

int main() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(-5, 3);
    std::vector<float> logits(51866);
    for (float& x : logits) x = normal(random);
    const int64_t n = static_cast<int64_t>(logits.size());
    volatile float sink = 0;
    report("log_sum_exp 51866, expf loop", [&] {
        const float m = *std::max_element(logits.begin(), logits.end());
        float sum = 0;
        for (float x : logits) sum += std::exp(x - m);
        sink = m + std::log(sum);
    });
    report("argmax 51866, std::max_element", [&] {
        sink = static_cast<float>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    });
    for (const ElementwiseForm* f : elementwise_usable_forms()) {
        report(std::string("log_sum_exp 51866, ") + f->name,
               [&] { sink = log_sum_exp_with(*f, logits.data(), n); });
        report(std::string("argmax 51866, ") + f->name,
               [&] { sink = static_cast<float>(f->argmax(logits.data(), n)); });
    }
    (void)sink;

    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, 1);
    report_graph(backend, "layer_norm 512 x 1500, ggml norm, mul, add", 512, 1500,
                 [](ggml_context* c, ggml_tensor* x, ggml_tensor* v) {
                     return ggml_add(c, ggml_mul(c, ggml_norm(c, x, 1e-5f), v), v);
                 });
    for (const ElementwiseForm* f : elementwise_usable_forms()) {
        report_graph(backend, std::string("layer_norm 512 x 1500, ") + f->name, 512, 1500,
                     [f](ggml_context* c, ggml_tensor* x, ggml_tensor* v) {
                         return layer_norm_with(*f, c, x, v, v, 1e-5f);
                     });
    }
    report_graph(
        backend, "bias + gelu 2048 x 1500, ggml add, gelu_erf", 2048, 1500,
        [](ggml_context* c, ggml_tensor* x, ggml_tensor* v) { return ggml_gelu_erf(c, ggml_add(c, x, v)); });
    report_graph(backend, "gelu 2048 x 1500, ggml gelu (tanh table)", 2048, 1500,
                 [](ggml_context* c, ggml_tensor* x, ggml_tensor*) { return ggml_gelu(c, x); });
    for (const ElementwiseForm* f : elementwise_usable_forms()) {
        report_graph(
            backend, std::string("bias + gelu 2048 x 1500, ") + f->name, 2048, 1500,
            [f](ggml_context* c, ggml_tensor* x, ggml_tensor* v) { return gelu_erf_with(*f, c, x, v); });
    }
    ggml_backend_free(backend);
    return 0;
}
