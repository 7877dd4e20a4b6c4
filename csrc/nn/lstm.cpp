#include "nn/lstm.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kernels/recurrent.h"

namespace rustasr {
namespace {

ggml_tensor* narrow_weight(const Weights& weights, int64_t k, int64_t n) {
    ggml_tensor* weight = weights.get("weight", {k, n});
    if (kernels::recurrent_supported(weight->type)) return weight;
    throw ModelFileError(std::string("tensor ") + ggml_get_name(weight) +
                         ": expected f32, f16 or bf16, found " + ggml_type_name(weight->type) +
                         "; convert the model again");
}

// Rows [i·n, (i + 1)·n) of x.
ggml_tensor* part(ggml_context* ctx, ggml_tensor* x, int64_t n, int64_t i) {
    return ggml_view_2d(ctx, x, n, x->ne[1], x->nb[1], static_cast<size_t>(i * n) * x->nb[0]);
}

// gates [4n, m] in the order i, f, g, o and c [n, m] → the state after them [2n, m]: h, then c.
ggml_tensor* cell(ggml_context* ctx, ggml_tensor* gates, ggml_tensor* c) {
    const int64_t n = c->ne[0];
    ggml_tensor *opened = ggml_sigmoid(ctx, gates), *squashed = ggml_tanh(ctx, gates);
    c = ggml_add(ctx, ggml_mul(ctx, part(ctx, opened, n, 1), c),
                 ggml_mul(ctx, part(ctx, opened, n, 0), part(ctx, squashed, n, 2)));
    ggml_tensor* h = ggml_mul(ctx, part(ctx, opened, n, 3), ggml_tanh(ctx, c));
    return ggml_concat(ctx, h, c, 0);
}

// Steps [n, 1, B] one behind the other: [n, T, B]. By halves, so that little is copied again and again.
ggml_tensor* in_a_row(ggml_context* ctx, std::vector<ggml_tensor*> steps) {
    while (steps.size() > 1) {
        std::vector<ggml_tensor*> pairs;
        for (size_t i = 0; i + 1 < steps.size(); i += 2)
            pairs.push_back(ggml_concat(ctx, steps[i], steps[i + 1], 1));
        if (steps.size() % 2 == 1) pairs.push_back(steps.back());
        steps = std::move(pairs);
    }
    return steps.front();
}

}  // namespace

NarrowLinear::NarrowLinear(Weights weights, int64_t k, int64_t n)
    : weight_(narrow_weight(weights, k, n)), bias_(weights.get_f32("bias", {n})) {}

ggml_tensor* NarrowLinear::operator()(Graph& graph, ggml_tensor* x) const {
    if (graph.cpu_kernels()) return kernels::narrow_linear(graph.ctx(), weight_, bias_, x);
    return ggml_add(graph.ctx(), ggml_mul_mat(graph.ctx(), weight_, x), bias_);
}

LstmLayer::LstmLayer(Weights weights, int64_t n_in, int64_t n_hidden)
    : weight_(narrow_weight(weights, n_in + n_hidden, 4 * n_hidden)),
      bias_(weights.get_f32("bias", {4 * n_hidden})),
      n_hidden_(n_hidden) {}

ggml_tensor* LstmLayer::operator()(Graph& graph, ggml_tensor* x, ggml_tensor* state) const {
    ggml_context* ctx = graph.ctx();
    if (graph.cpu_kernels()) return kernels::lstm_step(ctx, weight_, bias_, x, state);
    ggml_tensor* input = ggml_concat(ctx, x, part(ctx, state, n_hidden_, 0), 0);
    ggml_tensor* gates = ggml_add(ctx, ggml_mul_mat(ctx, weight_, input), bias_);  // [4·n_hidden, m]
    return cell(ctx, gates, part(ctx, state, n_hidden_, 1));
}

LstmSequence::LstmSequence(Weights weights, int64_t n_in, int64_t n_hidden)
    : input_(weights / "input", n_in, 4 * n_hidden),
      hidden_(narrow_weight(weights / "hidden", n_hidden, 4 * n_hidden)) {}

ggml_tensor* LstmSequence::operator()(Graph& graph, ggml_tensor* x, ggml_tensor* state) const {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* gates = input_(graph, x);  // [4·n_hidden, T, B]
    if (graph.cpu_kernels()) return kernels::lstm_sequence(ctx, hidden_, gates, state);
    const int64_t n = hidden_->ne[0], batch = x->ne[2];
    ggml_tensor* states = nullptr;  // [2·n_hidden, t, B]
    for (int64_t t = 0; t < x->ne[1]; ++t) {
        ggml_tensor* input =
            ggml_view_2d(ctx, gates, 4 * n, batch, gates->nb[2], static_cast<size_t>(t) * gates->nb[1]);
        input = ggml_add(ctx, ggml_mul_mat(ctx, hidden_, part(ctx, state, n, 0)), input);
        state = cell(ctx, input, part(ctx, state, n, 1));
        ggml_tensor* step = ggml_reshape_3d(ctx, state, 2 * n, 1, batch);
        states = states ? ggml_concat(ctx, states, step, 1) : step;
    }
    return states;
}

BidirectionalLstm::BidirectionalLstm(Weights weights, int64_t n_in, int64_t n_hidden)
    : input_(weights / "input", n_in, 8 * n_hidden),
      forward_(narrow_weight(weights / "forward", n_hidden, 4 * n_hidden)),
      backward_(narrow_weight(weights / "backward", n_hidden, 4 * n_hidden)) {}

ggml_tensor* BidirectionalLstm::operator()(Graph& graph, ggml_tensor* x) const {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* gates = input_(graph, x);  // [8·n_hidden, T, B]
    if (graph.cpu_kernels()) return kernels::lstm_from_both_ends(ctx, forward_, backward_, gates);
    const int64_t n = forward_->ne[0], n_steps = x->ne[1];
    std::vector<ggml_tensor*> said[2];  // by cell: h [n_hidden, 1, B] of each step, as they come
    for (const bool backward : {false, true}) {
        ggml_tensor *h = nullptr, *c = nullptr;  // [n_hidden, B]; zero before the first step
        for (int64_t i = 0; i < n_steps; ++i) {
            const int64_t t = backward ? n_steps - 1 - i : i;
            ggml_tensor* step = ggml_view_2d(ctx, gates, 4 * n, x->ne[2], gates->nb[2],
                                             static_cast<size_t>(t) * gates->nb[1] +
                                                 (backward ? 4 * static_cast<size_t>(n) : 0) * gates->nb[0]);
            step = h ? ggml_add(ctx, ggml_mul_mat(ctx, backward ? backward_ : forward_, h), step)
                     : ggml_cont(ctx, step);
            if (!c) c = ggml_scale(ctx, ggml_cont(ctx, part(ctx, step, n, 0)), 0);
            ggml_tensor* state = cell(ctx, step, c);
            h = ggml_cont(ctx, part(ctx, state, n, 0));
            c = part(ctx, state, n, 1);
            said[backward].push_back(ggml_reshape_3d(ctx, h, n, 1, x->ne[2]));
        }
    }
    std::reverse(said[1].begin(), said[1].end());
    return ggml_concat(ctx, in_a_row(ctx, said[0]), in_a_row(ctx, said[1]), 0);
}

}  // namespace rustasr
