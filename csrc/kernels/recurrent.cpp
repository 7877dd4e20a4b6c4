#include "kernels/recurrent.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"
#include "kernels/recurrent_form.h"
#include "kernels/scratch.h"
#include "kernels/vector_form.h"

namespace rustasr::kernels {
namespace {

const RecurrentForm& form_of(VectorForm form) {
    switch (form) {
#if RUSTASR_HAVE_AVX2
        case VectorForm::Avx2:
            return recurrent_form_avx2();
#endif
#if RUSTASR_HAVE_AVX512
        case VectorForm::Avx512:
            return recurrent_form_avx512();
#endif
#if RUSTASR_HAVE_NEON
        case VectorForm::Neon:
            return recurrent_form_neon();
#endif
        default:
            return recurrent_form_portable();
    }
}

const RecurrentForm& chosen_form() {
    static const RecurrentForm& form = form_of(chosen_vector_form());
    return form;
}

const float* floats(const ggml_tensor* t) { return static_cast<const float*>(t->data); }

Columns columns(const ggml_tensor* t) { return {floats(t), static_cast<int64_t>(t->nb[1] / sizeof(float))}; }

void compute_linear(ggml_tensor* dst, int ith, int nth, void* form) {
    const ggml_tensor *weight = dst->src[0], *bias = dst->src[1], *x = dst->src[2];
    const LinearTask task = {weight->data,
                             weight->type,
                             floats(bias),
                             weight->ne[0],
                             x->ne[1],
                             columns(x),
                             static_cast<float*>(dst->data),
                             dst->ne[0]};
    const int64_t n = weight->ne[1], fours = (n + 3) / 4;  // rows are read four at a time
    const int64_t begin = fours * ith / nth * 4, end = fours * (ith + 1) / nth * 4;
    static_cast<const RecurrentForm*>(form)->linear(task, begin, end < n ? end : n);
}

void compute_lstm_step(ggml_tensor* dst, int ith, int nth, void* form) {
    const ggml_tensor *weight = dst->src[0], *bias = dst->src[1], *x = dst->src[2], *state = dst->src[3];
    const int64_t p = weight->ne[1] / 4;
    const LstmTask task = {weight->data,
                           weight->type,
                           {floats(bias), 0},
                           weight->ne[0] - p,
                           p,
                           x->ne[1],
                           columns(x),
                           columns(state),
                           static_cast<float*>(dst->data),
                           dst->ne[0]};
    static_cast<const RecurrentForm*>(form)->lstm_step(task, p * ith / nth, p * (ith + 1) / nth);
}

void compute_lstm_sequence(ggml_tensor* dst, int ith, int nth, void* form) {
    const ggml_tensor *weight = dst->src[0], *gates = dst->src[1], *state = dst->src[2];
    const int64_t p = weight->ne[0], batch = dst->ne[2], begin = batch * ith / nth,
                  end = batch * (ith + 1) / nth;
    const auto stride = [](const ggml_tensor* t, int axis) {
        return static_cast<int64_t>(t->nb[axis] / sizeof(float));
    };
    const auto y = [&](int64_t t) {
        return static_cast<float*>(dst->data) + t * stride(dst, 1) + begin * stride(dst, 2);
    };
    LstmTask task = {weight->data,
                     weight->type,
                     {nullptr, stride(gates, 2)},
                     0,
                     p,
                     end - begin,
                     {nullptr, 0},
                     columns(state),
                     y(0),
                     stride(dst, 2)};
    task.state.data += begin * task.state.stride;
    for (int64_t t = 0; t < dst->ne[1]; t++) {
        task.bias.data = floats(gates) + t * stride(gates, 1) + begin * stride(gates, 2);
        task.y = y(t);
        static_cast<const RecurrentForm*>(form)->lstm_step(task, 0, p);
        task.state = {task.y, task.y_stride};
    }
}

// Sequences [first, first + m) of one cell; `from_end`: the second one.
void run_sequences(const RecurrentForm& form, ggml_tensor* dst, bool from_end, int64_t first, int64_t m) {
    const ggml_tensor *weight = dst->src[from_end ? 1 : 0], *gates = dst->src[2];
    const int64_t p = weight->ne[0], n_steps = dst->ne[1], own = from_end ? 1 : 0;
    const auto size = static_cast<size_t>(6 * p * m);
    auto* last = reinterpret_cast<float*>(thread_scratch(2 * size * sizeof(float)));
    float* next = last + size;
    std::fill(last, last + size, 0.0f);
    LstmTask task = {
        weight->data, weight->type, {nullptr, 8 * p * n_steps}, 0, p, m, {nullptr, 0}, {nullptr, 6 * p},
        nullptr,      6 * p};
    for (int64_t i = 0; i < n_steps; i++) {
        const int64_t t = from_end ? n_steps - 1 - i : i;
        task.bias.data = floats(gates) + (first * n_steps + t) * 8 * p + own * 4 * p;
        task.state.data = last;
        task.y = next;
        form.lstm_step(task, 0, p);
        for (int64_t column = 0; column < m; column++) {
            float* to = static_cast<float*>(dst->data) + ((first + column) * n_steps + t) * 2 * p + own * p;
            std::copy_n(next + column * 6 * p, p, to);
        }
        std::swap(last, next);
    }
}

void compute_lstm_from_both_ends(ggml_tensor* dst, int ith, int nth, void* form) {
    constexpr int64_t kMost = 4;  // sequences that share one reading of the weights
    const int64_t m = dst->ne[2], n_groups = (m + kMost - 1) / kMost;
    for (int64_t i = ith; i < 2 * n_groups; i += nth) {
        const int64_t first = i / 2 * kMost;
        run_sequences(*static_cast<const RecurrentForm*>(form), dst, i % 2 == 1, first,
                      std::min(kMost, m - first));
    }
}

std::string shape_of(const ggml_tensor* t) {
    return "[" + std::to_string(t->ne[0]) + ", " + std::to_string(t->ne[1]) + "] in " +
           ggml_type_name(t->type);
}

void check(const char* op, const char* what, const ggml_tensor* t, int64_t ne0, int64_t ne1) {
    if (t->type == GGML_TYPE_F32 && t->ne[0] == ne0 && t->ne[1] == ne1 && t->ne[2] * t->ne[3] == 1 &&
        t->nb[0] == sizeof(float) && t->nb[1] % sizeof(float) == 0) {
        return;
    }
    throw OptionError(std::string(op) + ": expected " + what + " of [" + std::to_string(ne0) + ", " +
                      std::to_string(ne1) + "] in f32, found " + shape_of(t));
}

void check_weight(const char* op, const ggml_tensor* weight) {
    if (recurrent_supported(weight->type) && ggml_is_contiguous(weight)) return;
    throw OptionError(std::string(op) + ": expected a contiguous weight in f32, f16 or bf16, found " +
                      shape_of(weight));
}

}  // namespace

std::vector<const RecurrentForm*> recurrent_usable_forms() {
    std::vector<const RecurrentForm*> forms;
    for (VectorForm form : usable_vector_forms()) forms.push_back(&form_of(form));
    return forms;
}

bool recurrent_supported(ggml_type weight) {
    return weight == GGML_TYPE_F32 || weight == GGML_TYPE_F16 || weight == GGML_TYPE_BF16;
}

ggml_tensor* narrow_linear_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* weight,
                                ggml_tensor* bias, ggml_tensor* x) {
    check_weight("narrow_linear", weight);
    check("narrow_linear", "a bias", bias, weight->ne[1], 1);
    check("narrow_linear", "x", x, weight->ne[0], x->ne[1]);
    ggml_tensor* args[] = {weight, bias, x};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], x->ne[1], 1, 1, args, 3, compute_linear,
                          GGML_N_TASKS_MAX, const_cast<RecurrentForm*>(&form));
}

ggml_tensor* lstm_step_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* weight,
                            ggml_tensor* bias, ggml_tensor* x, ggml_tensor* state) {
    const int64_t p = weight->ne[1] / 4, m = x->ne[1];
    check_weight("lstm_step", weight);
    check("lstm_step", "a bias", bias, 4 * p, 1);
    check("lstm_step", "x", x, weight->ne[0] - p, m);
    check("lstm_step", "a state", state, 2 * p, m);
    ggml_tensor* args[] = {weight, bias, x, state};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, 6 * p, m, 1, 1, args, 4, compute_lstm_step, GGML_N_TASKS_MAX,
                          const_cast<RecurrentForm*>(&form));
}

ggml_tensor* lstm_sequence_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* weight,
                                ggml_tensor* gates, ggml_tensor* state) {
    const int64_t p = weight->ne[0];
    check_weight("lstm_sequence", weight);
    if (gates->type != GGML_TYPE_F32 || gates->ne[0] != weight->ne[1] || gates->ne[3] != 1 ||
        !ggml_is_contiguous(gates)) {
        throw OptionError("lstm_sequence: expected contiguous gates of " + std::to_string(weight->ne[1]) +
                          " rows in f32, found " + shape_of(gates));
    }
    check("lstm_sequence", "a state", state, 2 * p, gates->ne[2]);
    if (weight->ne[1] != 4 * p) {
        throw OptionError("lstm_sequence: expected a weight of [p, 4p], found " + shape_of(weight));
    }
    ggml_tensor* args[] = {weight, gates, state};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, 6 * p, gates->ne[1], gates->ne[2], 1, args, 3,
                          compute_lstm_sequence, gates->ne[2] > 1 ? GGML_N_TASKS_MAX : 1,
                          const_cast<RecurrentForm*>(&form));
}

ggml_tensor* lstm_from_both_ends_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* forward,
                                      ggml_tensor* backward, ggml_tensor* gates) {
    const int64_t p = forward->ne[0];
    for (ggml_tensor* weight : {forward, backward}) {
        check_weight("lstm_from_both_ends", weight);
        if (weight->ne[0] == p && weight->ne[1] == 4 * p) continue;
        throw OptionError("lstm_from_both_ends: expected weights of [p, 4p], found " + shape_of(weight));
    }
    if (gates->type != GGML_TYPE_F32 || !ggml_is_contiguous(gates) || gates->ne[0] != 8 * p ||
        gates->ne[3] != 1) {
        throw OptionError("lstm_from_both_ends: expected contiguous gates of [" + std::to_string(8 * p) +
                          ", T, m] in f32, found " + shape_of(gates));
    }
    ggml_tensor* args[] = {forward, backward, gates};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, 2 * p, gates->ne[1], gates->ne[2], 1, args, 3,
                          compute_lstm_from_both_ends, GGML_N_TASKS_MAX, const_cast<RecurrentForm*>(&form));
}

ggml_tensor* narrow_linear(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x) {
    return narrow_linear_with(chosen_form(), ctx, weight, bias, x);
}

ggml_tensor* lstm_step(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x,
                       ggml_tensor* state) {
    return lstm_step_with(chosen_form(), ctx, weight, bias, x, state);
}

ggml_tensor* lstm_sequence(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* gates, ggml_tensor* state) {
    return lstm_sequence_with(chosen_form(), ctx, weight, gates, state);
}

ggml_tensor* lstm_from_both_ends(ggml_context* ctx, ggml_tensor* forward, ggml_tensor* backward,
                                 ggml_tensor* gates) {
    return lstm_from_both_ends_with(chosen_form(), ctx, forward, backward, gates);
}

}  // namespace rustasr::kernels
