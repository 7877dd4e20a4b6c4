// The functions that each instruction set provides: recurrent_<isa>.cpp, one body in recurrent_body.h.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml.h"

namespace rustasr::kernels {

// Columns of floats; `stride` floats from one to the next.
struct Columns {
    const float* data;
    int64_t stride;
};

struct LinearTask {
    const void* weight;  // [k, n]
    ggml_type type;
    const float* bias;
    int64_t k, m;
    Columns x;
    float* y;
    int64_t y_stride;
};

struct LstmTask {
    const void* weight;  // [k + p, 4p]
    ggml_type type;
    Columns bias;  // stride 0: one for all columns
    int64_t k, p, m;
    Columns x, state;
    float* y;  // per column: h, c and room for the 4p gates
    int64_t y_stride;
};

struct RecurrentForm {
    const char* name;
    void (*linear)(const LinearTask& task, int64_t begin, int64_t end);   // rows of the weight
    void (*lstm_step)(const LstmTask& task, int64_t begin, int64_t end);  // units
};

const RecurrentForm& recurrent_form_portable();
const RecurrentForm& recurrent_form_avx2();
const RecurrentForm& recurrent_form_avx512();
const RecurrentForm& recurrent_form_neon();

// The forms that this processor can run, the best one last.
std::vector<const RecurrentForm*> recurrent_usable_forms();

// narrow_linear(), lstm_step(), lstm_sequence() and lstm_from_both_ends() in a given form.
ggml_tensor* narrow_linear_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* weight,
                                ggml_tensor* bias, ggml_tensor* x);
ggml_tensor* lstm_step_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* weight,
                            ggml_tensor* bias, ggml_tensor* x, ggml_tensor* state);
ggml_tensor* lstm_sequence_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* weight,
                                ggml_tensor* gates, ggml_tensor* state);
ggml_tensor* lstm_from_both_ends_with(const RecurrentForm& form, ggml_context* ctx, ggml_tensor* forward,
                                      ggml_tensor* backward, ggml_tensor* gates);

}  // namespace rustasr::kernels
