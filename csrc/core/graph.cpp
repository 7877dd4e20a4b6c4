#include "core/graph.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/elementwise.h"

namespace rustasr {

Graph::Graph(Backend& backend, size_t max_nodes, kernels::Precision precision, std::vector<std::string> taps,
             GraphMemory memory)
    : backend_(backend),
      kernels_on_(kernels::elementwise_supported()),
      precision_(precision),
      wanted_(std::move(taps)),
      memory_(std::move(memory)) {
    context_.reset(ggml_init(
        {max_nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(max_nodes, false), nullptr, true}));
    graph_ = ggml_new_graph_custom(context_.get(), max_nodes, false);
    if (memory_.max_nodes >= max_nodes) {
        ggml_backend_sched_reset(memory_.scheduler.get());
        return;
    }
    auto backends = backend_.all();
    memory_ = {};  // before the new one is there: two at once would be the peak
    memory_ = {ggml_backend_sched_ptr(ggml_backend_sched_new(
                   backends.data(), nullptr, static_cast<int>(backends.size()), max_nodes, false, false)),
               max_nodes};
}

ggml_tensor* Graph::input(ggml_type type, std::initializer_list<int64_t> shape) {
    ggml_tensor* tensor = ggml_new_tensor(ctx(), type, static_cast<int>(shape.size()), shape.begin());
    ggml_set_input(tensor);
    return tensor;
}

void Graph::output(ggml_tensor* tensor) {
    ggml_set_output(tensor);
    ggml_build_forward_expand(graph_, tensor);
}

ggml_tensor* Graph::tap(const std::string& name, ggml_tensor* tensor) {
    if (tapped(name)) {
        ggml_tensor* copy = ggml_cont(ctx(), tensor);
        output(copy);
        tapped_[name] = copy;
    }
    return tensor;
}

bool Graph::tapped(const std::string& name) const {
    return std::find(wanted_.begin(), wanted_.end(), name) != wanted_.end();
}

void Graph::finish() {
    if (!ggml_backend_sched_alloc_graph(memory_.scheduler.get(), graph_)) {
        throw DeviceError("not enough memory for the computation on " +
                          std::string(ggml_backend_dev_name(backend_.device())) + ": " +
                          take_backend_errors() + "; try --device cpu or a smaller --batch-size");
    }
}

void Graph::run() {
    backend_.check_cancelled();
    const ggml_status status = backend_.compute(memory_.scheduler.get(), graph_);
    if (status == GGML_STATUS_SUCCESS) return;
    if (status == GGML_STATUS_ABORTED) backend_.check_cancelled();
    const std::string device = ggml_backend_dev_name(backend_.device());
    if (status == GGML_STATUS_ALLOC_FAILED) {
        throw DeviceError("device " + device + " ran out of memory: " + take_backend_errors() +
                          "; try --device cpu or a smaller --batch-size");
    }
    throw TranscriptionError("the computation on " + device + " failed: " + take_backend_errors());
}

void write(ggml_tensor* tensor, const void* data) {
    ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
}

void read(const ggml_tensor* tensor, void* data) {
    ggml_backend_tensor_get(tensor, data, 0, ggml_nbytes(tensor));
}

float* on_host(const ggml_tensor* tensor, std::vector<float>& copy) {
    GGML_ASSERT(tensor->type == GGML_TYPE_F32 && ggml_is_contiguous(tensor));
    if (ggml_backend_buffer_is_host(tensor->buffer)) return static_cast<float*>(tensor->data);
    copy.resize(static_cast<size_t>(ggml_nelements(tensor)));
    read(tensor, copy.data());
    return copy.data();
}

}  // namespace rustasr
