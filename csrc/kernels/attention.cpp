// The graph operation: checks, the split into work items and the choice of the form.
#include "kernels/attention.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "core/error.h"
#include "kernels/attention_form.h"

namespace rustasr::kernels {
namespace {

// What the operation needs beside its operands. It lies at the end of ggml's op_params, behind ggml's own
// pointer and counter, so that the graph owns it and it moves with the tensor.
struct Params {
    float scale;
    int32_t has_mask, has_lengths;
};
constexpr size_t kParamsOffset = GGML_MAX_OP_PARAMS - sizeof(Params);
static_assert(kParamsOffset >= 3 * sizeof(void*),
              "behind function, task count and user data of a custom operation");

// Working memory of one thread: one block, grown to the greatest head size seen (about 0.5 MiB for D = 64,
// 2 MiB for 256).
char* thread_scratch(size_t bytes) {
    struct Free {
        void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
    };
    thread_local std::unique_ptr<char, Free> block;
    thread_local size_t size = 0;
    if (size < bytes) {
        block.reset();
        block.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{64})));
        size = bytes;
    }
    return block.get();
}

Element element_of(ggml_type type) {
    return type == GGML_TYPE_F16 ? Element::F16 : type == GGML_TYPE_BF16 ? Element::BF16 : Element::F32;
}

AttentionOperand operand(const ggml_tensor* t) {
    return {static_cast<const char*>(t->data), {t->nb[1], t->nb[2], t->nb[3]}};
}

// Rows of an item: as many as the form likes (they share one conversion of K and V), but so few that every
// thread gets several items. A row's result does not depend on the item it is in.
int64_t rows_per_item(const AttentionForm& form, int64_t n_rows, int64_t n_groups, int64_t n_threads) {
    if (n_rows <= form.narrow_rows) return n_rows;
    const int64_t wanted = 4 * n_threads;
    const int64_t pieces =
        std::max((n_rows + form.wide_rows - 1) / form.wide_rows, (wanted + n_groups - 1) / n_groups);
    const int64_t tiles = (n_rows + pieces * form.tile_rows - 1) / (pieces * form.tile_rows);
    return std::max<int64_t>(1, tiles) * form.tile_rows;
}

// Calls visit(item, cost) for every item in one fixed order.
template <class Visit>
void for_each_item(const AttentionArgs& a, const ggml_tensor* k, const int32_t* lengths, int64_t step,
                   const Visit& visit) {
    const int64_t n_rows = a.n_queries * (a.n_heads / a.n_kv_heads);
    for (int64_t b = 0; b < k->ne[3]; b++) {
        const int64_t n_keys = lengths ? std::clamp<int64_t>(lengths[b], 0, k->ne[1]) : k->ne[1];
        for (int64_t h = 0; h < a.n_kv_heads; h++) {
            for (int64_t r = 0; r < n_rows; r += step) {
                const AttentionItem item = {b, h, r, std::min(n_rows, r + step), n_keys};
                visit(item, (item.row_end - item.row_begin) * (n_keys + 1));
            }
        }
    }
}

// Thread `ith` of `nth` takes the items that begin in its share of the whole cost: neighbouring ones, so that
// K and V of a head stay in its cache.
void compute(ggml_tensor* dst, int ith, int nth, void* user_data) {
    const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2];
    Params params;
    memcpy(&params, reinterpret_cast<const char*>(dst->op_params) + kParamsOffset, sizeof(params));
    const ggml_tensor* mask = params.has_mask ? dst->src[3] : nullptr;
    const ggml_tensor* lengths = params.has_lengths ? dst->src[params.has_mask ? 4 : 3] : nullptr;

    AttentionArgs a = {};
    a.q = operand(q);
    a.k = operand(k);
    a.v = operand(v);
    a.kv_type = element_of(k->type);
    if (mask) {
        a.mask = operand(mask);
        a.mask_type = element_of(mask->type);
        a.mask_heads = mask->ne[2];
        a.mask_batch = mask->ne[3];
    }
    a.head_dim = q->ne[0];
    a.n_queries = q->ne[1];
    a.n_heads = q->ne[2];
    a.n_kv_heads = k->ne[2];
    a.scale = params.scale;
    a.out = static_cast<float*>(dst->data);

    const AttentionForm& form = *static_cast<const AttentionForm*>(user_data);
    const int32_t* n_keys = lengths ? static_cast<const int32_t*>(lengths->data) : nullptr;
    char* scratch = thread_scratch(form.scratch_bytes(a.head_dim));
    const int64_t n_rows = a.n_queries * (a.n_heads / a.n_kv_heads);
    const int64_t step = rows_per_item(form, n_rows, a.n_kv_heads * k->ne[3], nth);
    const auto attend = n_rows <= form.narrow_rows ? form.narrow : form.wide;
    int64_t total = 0, done = 0;
    for_each_item(a, k, n_keys, step, [&](const AttentionItem&, int64_t cost) { total += cost; });
    for_each_item(a, k, n_keys, step, [&](const AttentionItem& item, int64_t cost) {
        if (done * nth / total == ith) attend(a, item, scratch);
        done += cost;
    });
}

bool head_dim_supported(int64_t d) { return d > 0 && d % 8 == 0 && d <= kAttentionMaxHeadDim; }

bool type_supported(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

std::string shape_of(const ggml_tensor* t) {
    std::string s = std::string(ggml_type_name(t->type)) + " [";
    for (int i = 0; i < 4; i++) s += (i ? ", " : "") + std::to_string(t->ne[i]);
    return s + "]";
}

void require(bool holds, const char* expected, const char* name, const ggml_tensor* t) {
    if (!holds) {
        throw OptionError(std::string("attention: expected ") + expected + ", found " + name + " = " +
                          shape_of(t));
    }
}

void check(const ggml_tensor* q, const ggml_tensor* k, const ggml_tensor* v, const ggml_tensor* mask,
           const ggml_tensor* lengths) {
    require(q->type == GGML_TYPE_F32 && q->nb[0] == 4, "q in F32 with adjacent elements", "q", q);
    require(head_dim_supported(q->ne[0]), "a head size that is a multiple of 8, at most 256", "q", q);
    require(type_supported(k->type), "k in F32, F16 or BF16", "k", k);
    require(k->ne[0] == q->ne[0] && q->ne[2] % k->ne[2] == 0 && k->ne[3] == q->ne[3] && k->ne[1] > 0,
            "k [D, Tk > 0, a divisor of H, B]", "k", k);
    require(k->nb[0] == ggml_type_size(k->type), "k with adjacent elements", "k", k);
    require(v->type == k->type && ggml_are_same_shape(v, k), "v of k's type and shape", "v", v);
    require(v->nb[0] == ggml_type_size(v->type), "v with adjacent elements", "v", v);
    if (mask) {
        require(mask->type == GGML_TYPE_F32 || mask->type == GGML_TYPE_F16, "a mask in F32 or F16", "mask",
                mask);
        require(mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] && q->ne[2] % mask->ne[2] == 0 &&
                    q->ne[3] % mask->ne[3] == 0 && mask->nb[0] == ggml_type_size(mask->type),
                "mask [>= Tk, >= Tq, a divisor of H, a divisor of B]", "mask", mask);
    }
    if (lengths) {
        require(lengths->type == GGML_TYPE_I32 && ggml_nelements(lengths) == q->ne[3] &&
                    ggml_is_contiguous(lengths),
                "lengths in I32, one per sequence", "lengths", lengths);
    }
}

}  // namespace

ggml_tensor* attention_with(const AttentionForm& form, ggml_context* ctx, ggml_tensor* q, ggml_tensor* k,
                            ggml_tensor* v, ggml_tensor* mask, float scale, ggml_tensor* lengths) {
    check(q, k, v, mask, lengths);
    ggml_tensor* args[5] = {q, k, v};
    int n_args = 3;
    if (mask) args[n_args++] = mask;
    if (lengths) args[n_args++] = lengths;
    ggml_tensor* result =
        ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[2], q->ne[1], q->ne[3], args, n_args, compute,
                       GGML_N_TASKS_MAX, const_cast<AttentionForm*>(&form));
    const Params params = {scale, mask != nullptr, lengths != nullptr};
    memcpy(reinterpret_cast<char*>(result->op_params) + kParamsOffset, &params, sizeof(params));
    return result;
}

ggml_tensor* attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                       float scale, ggml_tensor* lengths, Precision precision) {
    const AttentionForm* form = attention_chosen_form(precision);
    if (!form) throw OptionError("attention: the kernels are switched off (RUSTASR_KERNELS=off)");
    return attention_with(*form, ctx, q, k, v, mask, scale, lengths);
}

bool attention_supported(int64_t head_dim, ggml_type kv_type) {
    return attention_chosen_form(Precision::F32) && head_dim_supported(head_dim) && type_supported(kv_type);
}

const char* attention_form() {
    const AttentionForm* form = attention_chosen_form(Precision::Fast);
    return form ? form->name : "off";
}

}  // namespace rustasr::kernels
