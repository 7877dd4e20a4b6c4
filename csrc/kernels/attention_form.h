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
    AttentionOperand mask;       // data == nullptr: none
    AttentionOperand positions;  // data == nullptr: none
    Element kv_type, mask_type, position_type;
    int64_t mask_heads, mask_batch;             // extents of the mask's dimensions 2 and 3, either may be 1
    int64_t n_positions;                        // rows of the table; the middle one belongs to distance 0
    const float *content_bias, *distance_bias;  // [D, H] or nullptr
    int64_t head_dim, n_queries, n_heads, n_kv_heads;
    int64_t before, after;  // keys that a query sees on each side of its place
    float scale;
    float* out;  // [D, H, Tq, B]
};

// Queries that see the same keys but for `before` and `after`.
struct AttentionSpan {
    int64_t batch, kv_head;
    int64_t query_begin, query_end, key_begin, key_end;
    int64_t offset;  // query i stands at key i + offset
};

// A piece of work: rows [row_begin, row_end) of a span's queries of all heads that share a K/V head. Row r is
// query query_begin + r % n of query head kv_head * (n_heads / n_kv_heads) + r / n, n = query_end -
// query_begin.
struct AttentionItem {
    AttentionSpan span;
    int64_t row_begin, row_end;
};

struct KeyRange {
    int64_t begin, end;
};

// What a query may see. static: a form compiled for one instruction set must not share code with the others.
static inline KeyRange keys_of(const AttentionArgs& a, const AttentionSpan& s, int64_t query) {
    const int64_t place = query + s.offset;
    KeyRange keys = {place - a.before, place + a.after + 1};
    if (keys.begin < s.key_begin) keys.begin = s.key_begin;
    if (keys.end > s.key_end) keys.end = s.key_end;
    if (keys.end < keys.begin) keys.end = keys.begin = s.key_begin;
    return keys;
}

struct AttentionForm {
    const char* name;
    // At most `narrow_rows` queries (of all heads that share K and V) go to narrow(), which knows no relative
    // positions; else wide() takes items of at most `wide_rows` rows that begin on a multiple of `tile_rows`.
    int64_t narrow_rows, wide_rows, tile_rows;
    size_t (*scratch_bytes)(int64_t head_dim, bool positions);  // aligned to 64
    void (*wide)(const AttentionArgs&, const AttentionItem&, void* scratch);
    void (*narrow)(const AttentionArgs&, const AttentionItem&, void* scratch);
};

// The forms that this processor can run, the best one last.
std::vector<const AttentionForm*> attention_usable_forms();

// What attention() uses; nullptr when the kernels are switched off.
const AttentionForm* attention_chosen_form(Precision precision);

// attention() in a given form; the precision of the options is not looked at.
ggml_tensor* attention_with(const AttentionForm& form, ggml_context* ctx, ggml_tensor* q, ggml_tensor* k,
                            ggml_tensor* v, float scale, const AttentionOptions& options = {});

const AttentionForm& attention_form_portable();
const AttentionForm& attention_form_avx2();
const AttentionForm& attention_form_avx512();
const AttentionForm& attention_form_avx512bf16();        // wide() with BF16 dot products; narrow() of avx512
const AttentionForm& attention_form_avx512bf16_mixed();  // the same with F32 scores
const AttentionForm& attention_form_neon();

constexpr int64_t kAttentionMaxHeadDim = 256;

}  // namespace rustasr::kernels
