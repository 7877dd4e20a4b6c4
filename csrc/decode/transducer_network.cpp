#include "decode/transducer_network.h"

#include <algorithm>

namespace rustasr {
namespace {

constexpr size_t kMaxNodes = 512;  // 14 an LSTM layer where ggml's operations are used, of at most 16 layers

/// Graphs are kept for few different numbers of columns; the columns left over are zeros.
size_t columns_for(size_t n) {
    if (n <= 4) return n;
    size_t columns = 8;
    while (columns < n) columns *= 2;
    return columns;
}

/// A tensor whose rows are ggml columns, on the host.
class HostColumns {
   public:
    explicit HostColumns(const ggml_tensor* tensor) : stride_(static_cast<size_t>(tensor->nb[1])) {
        const size_t nbytes = ggml_nbytes(tensor);
        if (ggml_backend_buffer_is_host(tensor->buffer)) {
            data_ = static_cast<const char*>(tensor->data);
            return;
        }
        copied_.resize(nbytes);
        ggml_backend_tensor_get(tensor, copied_.data(), 0, nbytes);
        data_ = copied_.data();
    }
    const float* operator[](size_t i) const { return reinterpret_cast<const float*>(data_ + i * stride_); }

   private:
    size_t stride_;
    const char* data_;
    std::vector<char> copied_;
};

}  // namespace

struct TransducerNetwork::PredictPass {
    PredictPass(Backend& backend, const TransducerHead& head, size_t n)
        : graph(backend, kMaxNodes, kernels::Precision::F32) {
        const auto columns = static_cast<int64_t>(n);
        tokens = graph.input(GGML_TYPE_I32, {columns});
        for (int i = 0; i < head.config.pred_layers; ++i)
            states.push_back(graph.input(GGML_TYPE_F32, {2 * int64_t{head.config.pred_hidden}, columns}));
        next_states = states;
        output = head.predict(graph, tokens, next_states);
        graph.output(output);
        for (ggml_tensor* state : next_states) graph.output(state);
        graph.finish();
    }
    Graph graph;
    ggml_tensor* tokens;                            // I32 [m]
    std::vector<ggml_tensor*> states, next_states;  // per layer [2P, m] and [≥ 2P, m]
    ggml_tensor* output;                            // [J, m]
};

struct TransducerNetwork::JointPass {
    JointPass(Backend& backend, const TransducerHead& head, size_t n)
        : graph(backend, kMaxNodes, kernels::Precision::F32) {
        x = graph.input(GGML_TYPE_F32, {head.config.joint_hidden, static_cast<int64_t>(n)});
        logits = head.joint(graph, x);
        graph.output(logits);
        graph.finish();
    }
    Graph graph;
    ggml_tensor* x;       // [J, m]
    ggml_tensor* logits;  // [n_classes, m]
};

TransducerNetwork::PredictPass& TransducerNetwork::predict_pass(size_t n) {
    auto& pass = predict_passes_[columns_for(n)];
    if (!pass) pass = std::make_shared<PredictPass>(backend_, head_, columns_for(n));
    return *pass;
}

TransducerNetwork::JointPass& TransducerNetwork::joint_pass(size_t n) {
    auto& pass = joint_passes_[columns_for(n)];
    if (!pass) pass = std::make_shared<JointPass>(backend_, head_, columns_for(n));
    return *pass;
}

PredictionPtr TransducerNetwork::start() {
    if (!start_) start_ = predict({{nullptr, config().blank_id}}).front();
    return start_;
}

std::vector<PredictionPtr> TransducerNetwork::predict(const std::vector<PredictionInput>& inputs) {
    if (inputs.empty()) return {};
    PredictPass& pass = predict_pass(inputs.size());
    const auto n_columns = static_cast<size_t>(pass.tokens->ne[0]);
    const size_t width = 2 * static_cast<size_t>(config().pred_hidden);
    std::vector<int32_t> tokens(n_columns, config().blank_id);
    for (size_t i = 0; i < inputs.size(); ++i) tokens[i] = inputs[i].token;
    write(pass.tokens, tokens.data());
    for (size_t layer = 0; layer < pass.states.size(); ++layer) {
        x_.assign(n_columns * width, 0.0f);
        for (size_t i = 0; i < inputs.size(); ++i) {
            if (inputs[i].before) std::copy_n(&inputs[i].before->state[layer * width], width, &x_[i * width]);
        }
        write(pass.states[layer], x_.data());
    }
    pass.graph.run();

    std::vector<std::shared_ptr<Prediction>> next;
    const HostColumns output(pass.output);
    for (size_t i = 0; i < inputs.size(); ++i) {
        next.push_back(std::make_shared<Prediction>());
        next[i]->output.assign(output[i], output[i] + config().joint_hidden);
    }
    for (ggml_tensor* tensor : pass.next_states) {
        const HostColumns state(tensor);
        for (size_t i = 0; i < inputs.size(); ++i)
            next[i]->state.insert(next[i]->state.end(), state[i], state[i] + width);
    }
    return {next.begin(), next.end()};
}

float* TransducerNetwork::joint(const std::vector<JointInput>& inputs) {
    JointPass& pass = joint_pass(inputs.size());
    const auto width = static_cast<size_t>(config().joint_hidden);
    x_.assign(static_cast<size_t>(pass.x->ne[1]) * width, 0.0f);
    for (size_t i = 0; i < inputs.size(); ++i) {
        for (size_t j = 0; j < width; ++j)
            x_[i * width + j] = std::max(0.0f, inputs[i].frame[j] + inputs[i].prediction[j]);
    }
    write(pass.x, x_.data());
    pass.graph.run();
    return on_host(pass.logits, logits_);
}

}  // namespace rustasr
