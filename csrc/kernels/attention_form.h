// What attention.cpp hands to a form, and the form's table of functions. A form is the same algorithm
// compiled for one instruction set: attention_<isa>.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ggml.h"
#include "kernels/attention.h"

namespace rustasr::kernels {

enum class Element : int32_t { F32, F16, BF16 };

// A strided operand [D, n, heads, batch]; strides in bytes, of dimensions 1, 2 and 3.
struct AttentionOperand {
    const char* data;
    size_t stride[3];
};

struct AttentionArgs {
    AttentionOperand q, k, v;
    AttentionOperand mask;  // data == nullptr: none
    Element kv_type, mask_type;
    int64_t mask_heads, mask_batch;  // extents of the mask's dimensions 2 and 3, either may be 1
    int64_t head_dim, n_queries, n_heads, n_kv_heads;
    float scale;
    float* out;  // [D, H, Tq, B]
};

// A piece of work: rows [row_begin, row_end) of the queries that share one K/V head. Row r is query r %
// n_queries of query head kv_head * (n_heads / n_kv_heads) + r / n_queries.
struct AttentionItem {
    int64_t batch, kv_head, row_begin, row_end, n_keys;
};

struct AttentionForm {
    const char* name;
    // At most `narrow_rows` queries (of all heads that share K and V) go to narrow(); else wide() takes items
    // of at most `wide_rows` rows, best a multiple of `tile_rows`.
    int64_t narrow_rows, wide_rows, tile_rows;
    size_t (*scratch_bytes)(int64_t head_dim);  // aligned to 64
    void (*wide)(const AttentionArgs&, const AttentionItem&, void* scratch);
    void (*narrow)(const AttentionArgs&, const AttentionItem&, void* scratch);
};

// The forms that this processor can run, the best one last.
std::vector<const AttentionForm*> attention_usable_forms();

// What attention() uses; nullptr when the kernels are switched off.
const AttentionForm* attention_chosen_form(Precision precision);

// attention() in a given form.
ggml_tensor* attention_with(const AttentionForm& form, ggml_context* ctx, ggml_tensor* q, ggml_tensor* k,
                            ggml_tensor* v, ggml_tensor* mask, float scale, ggml_tensor* lengths);

const AttentionForm& attention_form_portable();
const AttentionForm& attention_form_avx2();
const AttentionForm& attention_form_avx512();
const AttentionForm& attention_form_avx512bf16();        // wide() with BF16 dot products; narrow() of avx512
const AttentionForm& attention_form_avx512bf16_mixed();  // the same with F32 scores
const AttentionForm& attention_form_neon();

constexpr int64_t kAttentionMaxHeadDim = 256;

}  // namespace rustasr::kernels
