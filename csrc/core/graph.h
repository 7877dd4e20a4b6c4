#pragma once
// One ggml graph, built once per shape and run many times: the tensors keep their places between runs.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/backend.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"
#include "kernels/attention.h"

namespace rustasr {

/// Where the tensors of a graph lie, for graphs of up to `max_nodes`.
struct GraphMemory {
    ggml_backend_sched_ptr scheduler;
    size_t max_nodes = 0;
};

class Graph {
   public:
    /// `precision`: of attention on the CPU; F32 is the reference that the faster forms are measured against.
    /// `taps`: names of intermediates that `tap` shall keep as outputs.
    /// `memory`: of a graph that is not run again; where it is large enough, none is taken anew.
    Graph(Backend& backend, size_t max_nodes, kernels::Precision precision,
          std::vector<std::string> taps = {}, GraphMemory memory = {});

    ggml_context* ctx() const { return context_.get(); }
    /// Whether our own CPU kernels may stand in for ggml's operations.
    bool cpu_kernels() const { return backend_.on_cpu() && kernels_on_; }
    bool on_cpu() const { return backend_.on_cpu(); }
    kernels::Precision precision() const { return precision_; }

    ggml_tensor* input(ggml_type type, std::initializer_list<int64_t> shape);
    void output(ggml_tensor* tensor);
    /// An effect (a write into a cache) that must happen although nothing reads its result.
    void effect(ggml_tensor* tensor) { ggml_build_forward_expand(graph_, tensor); }
    /// Keeps `tensor` readable under `name` if a tap of that name was asked for; returns it.
    ggml_tensor* tap(const std::string& name, ggml_tensor* tensor);
    bool tapped(const std::string& name) const;

    /// Places every tensor. Call once, after the last operation. Throws DeviceError.
    void finish();
    /// Throws Cancelled, DeviceError or TranscriptionError.
    void run();

    /// For the next graph; this one is over.
    GraphMemory give_memory() { return std::move(memory_); }

    const std::map<std::string, ggml_tensor*>& taps() const { return tapped_; }

   private:
    Backend& backend_;
    bool kernels_on_;
    kernels::Precision precision_;
    std::vector<std::string> wanted_;
    std::map<std::string, ggml_tensor*> tapped_;
    ggml_context_ptr context_;
    ggml_cgraph* graph_ = nullptr;
    GraphMemory memory_;
};

/// Copies a whole contiguous tensor. `data` holds ggml_nbytes(tensor) bytes.
void write(ggml_tensor* tensor, const void* data);
void read(const ggml_tensor* tensor, void* data);
/// The values of a contiguous F32 tensor where they are, or, from another device's memory, in `copy`.
float* on_host(const ggml_tensor* tensor, std::vector<float>& copy);

}  // namespace rustasr
