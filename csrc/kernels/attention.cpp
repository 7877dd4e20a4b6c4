// The graph operation: checks, the split into work items and the choice of the form.
#include "kernels/attention.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/attention_form.h"
#include "kernels/scratch.h"

namespace rustasr::kernels {
namespace {

// The operands behind q, k and v that an operation may have, in the order of its sources.
enum Operand { kMask, kLengths, kOffsets, kTable, kContentBias, kDistanceBias, kOperands };
static_assert(3 + kOperands < GGML_MAX_SRC);

// What the operation needs beside its operands. It lies at the end of ggml's op_params, behind ggml's own
// pointer and counter, so that the graph owns it and it moves with the tensor.
struct Params {
    float scale;
    int32_t before, after, window;
    int32_t present;  // bit of each Operand
};
constexpr size_t kParamsOffset = GGML_MAX_OP_PARAMS - sizeof(Params);
static_assert(kParamsOffset >= 3 * sizeof(void*),
              "behind function, task count and user data of a custom operation");

struct Operands {
    ggml_tensor* tensors[kOperands];
    ggml_tensor* operator[](Operand o) const { return tensors[o]; }
};

Operands operands_of(const ggml_tensor* dst, const Params& params) {
    Operands operands = {};
    int next = 3;
    for (int i = 0; i < kOperands; i++) {
        if (params.present & (1 << i)) operands.tensors[i] = dst->src[next++];
    }
    return operands;
}

Element element_of(ggml_type type) {
    return type == GGML_TYPE_F16 ? Element::F16 : type == GGML_TYPE_BF16 ? Element::BF16 : Element::F32;
}

AttentionOperand operand(const ggml_tensor* t) {
    return {static_cast<const char*>(t->data), {t->nb[1], t->nb[2], t->nb[3]}};
}

const float* data_of(const ggml_tensor* t) { return t ? static_cast<const float*>(t->data) : nullptr; }

AttentionArgs args_of(const ggml_tensor* dst, const Params& params, const Operands& operands) {
    const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2];
    AttentionArgs a = {};
    a.q = operand(q);
    a.k = operand(k);
    a.v = operand(v);
    a.kv_type = element_of(k->type);
    if (const ggml_tensor* mask = operands[kMask]) {
        a.mask = operand(mask);
        a.mask_type = element_of(mask->type);
        a.mask_heads = mask->ne[2];
        a.mask_batch = mask->ne[3];
    }
    if (const ggml_tensor* table = operands[kTable]) {
        a.positions = operand(table);
        a.position_type = element_of(table->type);
        a.n_positions = table->ne[1];
    }
    a.content_bias = data_of(operands[kContentBias]);
    a.distance_bias = data_of(operands[kDistanceBias]);
    a.head_dim = q->ne[0];
    a.n_queries = q->ne[1];
    a.n_heads = q->ne[2];
    a.n_kv_heads = k->ne[2];
    a.before = params.before;
    a.after = params.after;
    a.scale = params.scale;
    a.out = static_cast<float*>(dst->data);
    return a;
}

// Rows of an item: as many as the form likes (they share one conversion of K and V), but so few that every
// thread gets several items. A row's result does not depend on the item it is in.
int64_t rows_per_item(const AttentionForm& form, int64_t n_rows, int64_t n_groups, int64_t n_threads) {
    const int64_t wanted = 4 * n_threads;
    const int64_t pieces =
        std::max((n_rows + form.wide_rows - 1) / form.wide_rows, (wanted + n_groups - 1) / n_groups);
    const int64_t tiles = (n_rows + pieces * form.tile_rows - 1) / (pieces * form.tile_rows);
    return std::max<int64_t>(1, tiles) * form.tile_rows;
}

// How an operation falls apart: per sequence and K/V head into spans of `window` queries, and those into
// items of `rows`.
struct Plan {
    int64_t batch, n_keys, window, rows;
    const int32_t *lengths, *offsets;
};

// Of an item, in scores, and a little for the rows themselves.
int64_t cost_of(const AttentionArgs& a, const AttentionItem& item) {
    const int64_t n = item.span.query_end - item.span.query_begin;
    const auto keys = [&](int64_t row) {
        const KeyRange range = keys_of(a, item.span, item.span.query_begin + row % n);
        return range.end - range.begin;
    };
    return (item.row_end - item.row_begin) * (keys(item.row_begin) + keys(item.row_end - 1) + 2);
}

// Calls visit(item, cost) for every item in one fixed order.
template <class Visit>
void for_each_item(const AttentionArgs& a, const Plan& plan, const Visit& visit) {
    const int64_t n_shared = a.n_heads / a.n_kv_heads;
    for (int64_t b = 0; b < plan.batch; b++) {
        const int64_t n_keys =
            plan.lengths ? std::clamp<int64_t>(plan.lengths[b], 0, plan.n_keys) : plan.n_keys;
        for (int64_t h = 0; h < a.n_kv_heads; h++) {
            for (int64_t begin = 0; begin < a.n_queries; begin += plan.window) {
                const int64_t end = std::min(a.n_queries, begin + plan.window);
                AttentionSpan span = {b, h, begin, end, 0, n_keys, plan.offsets ? plan.offsets[b] : 0};
                if (plan.window < a.n_queries) {
                    span.key_begin = std::min(begin, n_keys);
                    span.key_end = std::min(end, n_keys);
                }
                const int64_t n_rows = (end - begin) * n_shared;
                for (int64_t r = 0; r < n_rows; r += plan.rows) {
                    const AttentionItem item = {span, r, std::min(n_rows, r + plan.rows)};
                    visit(item, cost_of(a, item));
                }
            }
        }
    }
}

// Thread `ith` of `nth` takes the items that begin in its share of the whole cost: neighbouring ones, so that
// K and V of a head stay in its cache.
void compute(ggml_tensor* dst, int ith, int nth, void* user_data) {
    Params params;
    memcpy(&params, reinterpret_cast<const char*>(dst->op_params) + kParamsOffset, sizeof(params));
    const Operands operands = operands_of(dst, params);
    const AttentionArgs a = args_of(dst, params, operands);
    const AttentionForm& form = *static_cast<const AttentionForm*>(user_data);

    const ggml_tensor* k = dst->src[1];
    Plan plan = {k->ne[3], k->ne[1], a.n_queries, 0, nullptr, nullptr};
    if (params.window > 0) plan.window = std::min<int64_t>(params.window, a.n_queries);
    if (operands[kLengths]) plan.lengths = static_cast<const int32_t*>(operands[kLengths]->data);
    if (operands[kOffsets]) plan.offsets = static_cast<const int32_t*>(operands[kOffsets]->data);
    const int64_t n_rows = plan.window * (a.n_heads / a.n_kv_heads);
    const int64_t n_spans = (a.n_queries + plan.window - 1) / plan.window;
    const bool narrow = n_rows <= form.narrow_rows && !a.positions.data;
    plan.rows = narrow ? n_rows : rows_per_item(form, n_rows, a.n_kv_heads * plan.batch * n_spans, nth);

    const auto attend = narrow ? form.narrow : form.wide;
    char* scratch = thread_scratch(form.scratch_bytes(a.head_dim, a.positions.data != nullptr));
    int64_t total = 0, done = 0;
    for_each_item(a, plan, [&](const AttentionItem&, int64_t cost) { total += cost; });
    for_each_item(a, plan, [&](const AttentionItem& item, int64_t cost) {
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

void require(bool holds, const std::string& message) {
    if (!holds) throw OptionError("attention: " + message);
}

bool is_per_sequence(const ggml_tensor* t, int64_t batch) {
    return t->type == GGML_TYPE_I32 && ggml_nelements(t) == batch && ggml_is_contiguous(t);
}

void check_operands(const ggml_tensor* q, const ggml_tensor* k, const ggml_tensor* v) {
    require(q->type == GGML_TYPE_F32 && q->nb[0] == 4, "q in F32 with adjacent elements", "q", q);
    require(head_dim_supported(q->ne[0]), "a head size that is a multiple of 8, at most 256", "q", q);
    require(type_supported(k->type), "k in F32, F16 or BF16", "k", k);
    require(k->ne[0] == q->ne[0] && q->ne[2] % k->ne[2] == 0 && k->ne[3] == q->ne[3] && k->ne[1] > 0,
            "k [D, Tk > 0, a divisor of H, B]", "k", k);
    require(k->nb[0] == ggml_type_size(k->type), "k with adjacent elements", "k", k);
    require(v->type == k->type && ggml_are_same_shape(v, k), "v of k's type and shape", "v", v);
    require(v->nb[0] == ggml_type_size(v->type), "v with adjacent elements", "v", v);
}

void check_mask(const ggml_tensor* q, const ggml_tensor* k, const ggml_tensor* mask) {
    require(mask->type == GGML_TYPE_F32 || mask->type == GGML_TYPE_F16, "a mask in F32 or F16", "mask", mask);
    require(mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] && q->ne[2] % mask->ne[2] == 0 &&
                q->ne[3] % mask->ne[3] == 0 && mask->nb[0] == ggml_type_size(mask->type),
            "mask [>= Tk, >= Tq, a divisor of H, a divisor of B]", "mask", mask);
}

void check_positions(const ggml_tensor* q, const ggml_tensor* k, const AttentionOptions& o) {
    const ggml_tensor* table = o.positions.table;
    require(k->ne[2] == q->ne[2], "as many k heads as q heads with relative positions", "k", k);
    // Places differ by less than this; where offsets say how far, the caller knows the greatest.
    const int64_t apart = (o.window ? o.window : std::max(q->ne[1], k->ne[1])) - 1;
    const int64_t reach = std::max(std::min<int64_t>(o.before, apart), std::min<int64_t>(o.after, apart));
    require(type_supported(table->type) && table->nb[0] == ggml_type_size(table->type) &&
                table->ne[0] == q->ne[0] && table->ne[1] % 2 == 1 && table->ne[2] == q->ne[2] &&
                table->ne[3] == 1 && (o.offsets || table->ne[1] / 2 >= reach),
            "a table of positions [D, 2R - 1, H] in F32, F16 or BF16 with a row for every distance", "table",
            table);
    for (const ggml_tensor* bias : {o.positions.content_bias, o.positions.distance_bias}) {
        if (!bias) continue;
        require(bias->type == GGML_TYPE_F32 && ggml_is_contiguous(bias) && bias->ne[0] == q->ne[0] &&
                    ggml_nelements(bias) == q->ne[0] * q->ne[2],
                "a bias [D, H] in F32", "bias", bias);
    }
}

void check(const ggml_tensor* q, const ggml_tensor* k, const ggml_tensor* v, const AttentionOptions& o) {
    check_operands(q, k, v);
    if (o.mask) check_mask(q, k, o.mask);
    if (o.lengths)
        require(is_per_sequence(o.lengths, q->ne[3]), "lengths in I32, one per sequence", "lengths",
                o.lengths);
    if (o.offsets)
        require(is_per_sequence(o.offsets, q->ne[3]), "offsets in I32, one per sequence", "offsets",
                o.offsets);
    require(o.before >= 0 && o.after >= 0 && o.window >= 0,
            "expected before, after and window of 0 or more, found " + std::to_string(o.before) + ", " +
                std::to_string(o.after) + ", " + std::to_string(o.window));
    if (o.window)
        require(k->ne[1] == q->ne[1] && !o.offsets, "k as long as q and no offsets with windows", "k", k);
    require(o.positions.table || !(o.positions.content_bias || o.positions.distance_bias),
            "expected a table of positions with its biases, found none");
    if (o.positions.table) check_positions(q, k, o);
}

}  // namespace

ggml_tensor* attention_with(const AttentionForm& form, ggml_context* ctx, ggml_tensor* q, ggml_tensor* k,
                            ggml_tensor* v, float scale, const AttentionOptions& options) {
    check(q, k, v, options);
    const RelativePositions& positions = options.positions;
    const Operands operands = {{options.mask, options.lengths, options.offsets, positions.table,
                                positions.content_bias, positions.distance_bias}};
    Params params = {scale, options.before, options.after, options.window, 0};
    ggml_tensor* args[3 + kOperands] = {q, k, v};
    int n_args = 3;
    for (int i = 0; i < kOperands; i++) {
        if (!operands.tensors[i]) continue;
        args[n_args++] = operands.tensors[i];
        params.present |= 1 << i;
    }
    ggml_tensor* result =
        ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[2], q->ne[1], q->ne[3], args, n_args, compute,
                       GGML_N_TASKS_MAX, const_cast<AttentionForm*>(&form));
    memcpy(reinterpret_cast<char*>(result->op_params) + kParamsOffset, &params, sizeof(params));
    return result;
}

ggml_tensor* attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, float scale,
                       const AttentionOptions& options) {
    const AttentionForm* form = attention_chosen_form(options.precision);
    if (!form) throw OptionError("attention: the kernels are switched off (RUSTASR_KERNELS=off)");
    return attention_with(*form, ctx, q, k, v, scale, options);
}

bool attention_supported(int64_t head_dim, ggml_type kv_type) {
    return attention_chosen_form(Precision::F32) && head_dim_supported(head_dim) && type_supported(kv_type);
}

const char* attention_form() {
    const AttentionForm* form = attention_chosen_form(Precision::Fast);
    return form ? form->name : "off";
}

}  // namespace rustasr::kernels
