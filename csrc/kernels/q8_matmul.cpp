#include "kernels/q8_matmul.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "ggml.h"
#include "kernels/cpu_features.h"
#include "kernels/q8_matmul_form.h"

namespace rustasr::kernels {
namespace {

// ---- the form in use
// -----------------------------------------------------------------------------------------

const Q8Form* const* available_forms(int* count) {
    static const Q8Form* forms[6];
    static const int n = [] {
        const CpuFeatures& cpu = cpu_features();
        (void)cpu;
        int i = 0;
#if defined(RUSTASR_HAVE_AVX512VNNI)
        if (cpu.avx512vnni) forms[i++] = &kQ8Avx512Vnni;
#endif
#if defined(RUSTASR_HAVE_AVXVNNI)
        if (cpu.avxvnni) forms[i++] = &kQ8AvxVnni;
#endif
#if defined(RUSTASR_HAVE_AVX2)
        if (cpu.avx2) forms[i++] = &kQ8Avx2;
#endif
#if defined(RUSTASR_HAVE_NEON_DOTPROD)
        if (cpu.neon_dotprod) forms[i++] = &kQ8NeonDotprod;
#endif
        forms[i++] = &kQ8Portable;
        return i;
    }();
    *count = n;
    return forms;
}

const Q8Form* forced_form = nullptr;

const Q8Form& required_form() {
    const Q8Form* form = q8_active_form();
    if (form == nullptr) throw OptionError("the Q8_0 kernels are switched off by RUSTASR_KERNELS=off");
    return *form;
}

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

// ---- packing
// -------------------------------------------------------------------------------------------------

// block_q8_0 of ggml: an F16 scale and 32 int8. block_q4_0: an F16 scale and 16 bytes, byte i with value i
// in its low half and value 16 + i in its high one, each + 8.
int64_t file_block_nbytes(Quants quants) { return 2 + kQ8Block / (quants == Quants::Q4_0 ? 2 : 1); }

int64_t n_tiles(int64_t n) { return (n + kQ8PackRows - 1) / kQ8PackRows; }

void pack_tile(const uint8_t* rows, int64_t n_rows, int64_t k, Quants quants, uint8_t weight_xor,
               uint8_t* tile) {
    const int64_t n_blocks = k / kQ8Block, block_nbytes = file_block_nbytes(quants);
    const int64_t groups = (block_nbytes - 2) / 4;
    const uint8_t flip = quants == Quants::Q8_0 ? weight_xor : 0;
    uint8_t* values = tile + q8_scales_nbytes(k);
    // Rows that are not there have a scale of zero.
    std::memset(tile, 0, static_cast<size_t>(q8_tile_nbytes(k, quants)));
    const uint32_t flips = flip * 0x01010101u;
    for (int64_t r = 0; r < n_rows; ++r) {
        const uint8_t* row = rows + r * n_blocks * block_nbytes;
        for (int64_t b = 0; b < n_blocks; ++b) {
            const uint8_t* block = row + b * block_nbytes;
            std::memcpy(tile + 32 * b + 2 * r, block, 2);
            for (int64_t g = 0; g < groups; ++g) {
                uint32_t four;
                std::memcpy(&four, block + 2 + 4 * g, 4);
                four ^= flips;
                std::memcpy(values + (groups * b + g) * 64 + 4 * r, &four, 4);
            }
        }
    }
}

void unpack_row(const uint8_t* packed, int64_t k, Quants quants, int64_t row, uint8_t flip, float* out) {
    const uint8_t* tile = packed + row / kQ8PackRows * q8_tile_nbytes(k, quants);
    const int64_t r = row % kQ8PackRows;
    const uint8_t* values = tile + q8_scales_nbytes(k);
    for (int64_t b = 0; b < k / kQ8Block; ++b) {
        ggml_fp16_t half;
        std::memcpy(&half, tile + 32 * b + 2 * r, 2);
        const float scale = ggml_fp16_to_fp32(half);
        for (int i = 0; i < kQ8Block; ++i) {
            int value;
            if (quants == Quants::Q8_0) {
                value = static_cast<int8_t>(values[(8 * b + i / 4) * 64 + 4 * r + i % 4] ^ flip);
            } else {
                value = (values[(4 * b + i % 16 / 4) * 64 + 4 * r + i % 4] >> (i / 16 * 4) & 15) - 8;
            }
            out[b * kQ8Block + i] = scale * static_cast<float>(value);
        }
    }
}

// ---- the operations, as ggml's pool calls them
// ----------------------------------------------------------------- The form travels as userdata (a static
// object); the rest follows from the tensors and a few integers kept behind ggml's own parameters of a custom
// operation (three words, so index 8 of 16 is free).

constexpr int kParamActivation = 8, kParamFlags = 9, kParamScale = 10;  // q8_linear
constexpr int kParamStride = 8, kParamPadding = 9;  // q8_quantize_frames; 0 in q8_quantize
constexpr int kParamRoundings = 11;                 // both
constexpr int kParamRows = 8;                       // q8_get_rows
constexpr int kParamQuants = 12;                    // q8_linear and q8_get_rows
constexpr int32_t kHasBias = 1, kHasResidual = 2;

const Q8Form& form_of(const void* userdata) { return *static_cast<const Q8Form*>(userdata); }

// The rows of x as q8_quantize (stride 0) or q8_quantize_frames see them.
struct Rows {
    const ggml_tensor* x;
    int64_t roundings, k, stride, padding, per_batch;

    explicit Rows(const ggml_tensor* dst)
        : x(dst->src[0]),
          roundings(dst->op_params[kParamRoundings]),
          k(dst->ne[0] / (kQ8Block + 8) * kQ8Block / roundings),
          stride(dst->op_params[kParamStride]),
          padding(dst->op_params[kParamPadding]),
          per_batch(dst->ne[1]) {}

    const float* batch(int64_t row) const {
        const int64_t i2 = row / per_batch % x->ne[2], i3 = row / per_batch / x->ne[2];
        return reinterpret_cast<const float*>(static_cast<const char*>(x->data) + i2 * x->nb[2] +
                                              i3 * x->nb[3]);
    }
    // Position of the row's first value from its batch's, in values.
    int64_t offset(int64_t row) const {
        const int64_t i1 = row % per_batch;
        return stride == 0 ? i1 * static_cast<int64_t>(x->nb[1] / sizeof(float))
                           : (i1 * stride - padding) * x->ne[0];
    }
    // Values that a row may take from its batch: [0, limit).
    int64_t limit() const { return stride == 0 ? INT64_MAX : x->ne[0] * x->ne[1]; }
};

// Quantises what a first rounding of the blocks [begin, end) of x has left of them, to blocks further on.
void quantize_rest(const Q8Form& form, const float* x, int64_t k, int64_t begin, int64_t end, uint8_t* out) {
    const int64_t n_blocks = k / kQ8Block;
    for (int64_t b = begin; b < end; ++b, x += kQ8Block) {
        float scale, rest[kQ8Block];
        std::memcpy(&scale, out + 2 * k + 4 * b, 4);
        for (int64_t i = 0; i < kQ8Block; ++i) {
            rest[i] = x[i] - scale * static_cast<float>(static_cast<int8_t>(out[b * kQ8Block + i]));
        }
        form.quantize(rest, 2 * k, n_blocks + b, n_blocks + b + 1, out);
    }
}

// Blocks [begin, end) of a row, of which some may lie outside the values of its batch.
void quantize_blocks(const Q8Form& form, const Rows& rows, int64_t row, int64_t begin, int64_t end,
                     uint8_t* out) {
    const float* batch = rows.batch(row);
    const int64_t offset = rows.offset(row), limit = rows.limit();
    const int64_t from = offset + begin * kQ8Block, to = offset + end * kQ8Block;
    if (rows.stride == 0 || (from >= 0 && to <= limit)) {
        form.quantize(batch + from, rows.roundings * rows.k, begin, end, out);
        if (rows.roundings == 2) quantize_rest(form, batch + from, rows.k, begin, end, out);
        return;
    }
    for (int64_t b = begin; b < end; ++b) {
        float block[kQ8Block];
        for (int64_t i = 0; i < kQ8Block; ++i) {
            const int64_t at = offset + b * kQ8Block + i;
            block[i] = at >= 0 && at < limit ? batch[at] : 0.0f;
        }
        form.quantize(block, rows.k, b, b + 1, out);
    }
}

void run_quantize(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const Rows rows(dst);
    const int64_t n_blocks = rows.k / kQ8Block, units = dst->ne[1] * dst->ne[2] * dst->ne[3] * n_blocks;
    int64_t unit = units * ith / nth;
    const int64_t unit_end = units * (ith + 1) / nth;
    while (unit < unit_end) {
        const int64_t row = unit / n_blocks, begin = unit % n_blocks;
        const int64_t end = std::min(n_blocks, begin + unit_end - unit);
        quantize_blocks(form_of(userdata), rows, row, begin, end,
                        static_cast<uint8_t*>(dst->data) + row * dst->ne[0]);
        unit += end - begin;
    }
}

// Work cut into `parts` near-equal ranges of whole units.
struct Range {
    int64_t begin, end;
};
Range part(int64_t total, int64_t unit, int64_t index, int64_t parts) {
    const int64_t units = (total + unit - 1) / unit;
    return {std::min(total, units * index / parts * unit),
            std::min(total, units * (index + 1) / parts * unit)};
}

// How many ways to cut the columns (the rest cuts the rows), so that the largest share is the least.
int64_t column_parts(const Q8Form& form, int64_t tiles, int64_t rows, int64_t threads) {
    int64_t best = threads, best_cost = INT64_MAX;
    for (int64_t columns = threads; columns >= 1; --columns) {
        if (threads % columns != 0) continue;
        const int64_t column_units = (tiles + form.tiles - 1) / form.tiles, row_parts = threads / columns;
        const int64_t row_units = (rows + form.rows - 1) / form.rows;
        const int64_t widest = (column_units + columns - 1) / columns * form.tiles;
        const int64_t tallest = std::min(rows, (row_units + row_parts - 1) / row_parts * form.rows);
        if (widest * tallest < best_cost) {
            best_cost = widest * tallest;
            best = columns;
        }
    }
    return best;
}

void run_linear(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const Q8Form& form = form_of(userdata);
    const int32_t flags = dst->op_params[kParamFlags];
    const ggml_tensor* xq = dst->src[1];
    const ggml_tensor* bias = (flags & kHasBias) ? dst->src[2] : nullptr;
    const ggml_tensor* residual = (flags & kHasResidual) ? dst->src[(flags & kHasBias) ? 3 : 2] : nullptr;
    Q8Product p = {};
    p.weights = static_cast<const uint8_t*>(dst->src[0]->data);
    p.x = static_cast<const uint8_t*>(xq->data);
    p.quants = static_cast<Quants>(dst->op_params[kParamQuants]);
    p.roundings = dst->op_params[kParamRoundings];
    p.x_row_nbytes = xq->ne[0];
    p.k = p.x_row_nbytes / (kQ8Block + 8) * kQ8Block / p.roundings;
    p.n = dst->ne[0];
    p.y = static_cast<float*>(dst->data);
    p.bias = bias ? static_cast<const float*>(bias->data) : nullptr;
    p.activation = static_cast<Activation>(dst->op_params[kParamActivation]);
    std::memcpy(&p.scale, &dst->op_params[kParamScale], sizeof(p.scale));
    p.rows1 = dst->ne[1];
    p.rows2 = dst->ne[2];
    if (residual != nullptr) {
        p.residual = static_cast<const char*>(residual->data);
        for (int i = 0; i < 3; ++i) p.residual_stride[i] = static_cast<int64_t>(residual->nb[i + 1]);
    }
    const int64_t rows = dst->ne[1] * dst->ne[2] * dst->ne[3];
    const int64_t columns = column_parts(form, n_tiles(p.n), rows, nth);
    const Range tiles = part(n_tiles(p.n), form.tiles, ith % columns, columns);
    const Range mine = part(rows, form.rows, ith / columns, nth / columns);
    form.product(p, tiles.begin, tiles.end, mine.begin, mine.end);
}

void run_get_rows(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const ggml_tensor* ids = dst->src[1];
    const int64_t total = ggml_nelements(ids);
    for (int64_t i = total * ith / nth; i < total * (ith + 1) / nth; ++i) {
        const int64_t row = static_cast<const int32_t*>(ids->data)[i];
        float* out = static_cast<float*>(dst->data) + i * dst->ne[0];
        GGML_ASSERT(row >= 0 && row < dst->op_params[kParamRows] &&
                    "q8_get_rows: an index outside the rows of W");
        unpack_row(static_cast<const uint8_t*>(dst->src[0]->data), dst->ne[0],
                   static_cast<Quants>(dst->op_params[kParamQuants]), row, form_of(userdata).weight_xor, out);
    }
}

void check_packed(const ggml_tensor* packed_w, int64_t k, int64_t n, Quants quants) {
    require(k > 0 && k % kQ8Block == 0 && n > 0, "q8: k must be a positive multiple of 32 and n positive");
    require(packed_w != nullptr && ggml_is_contiguous(packed_w) &&
                ggml_nbytes(packed_w) >= q8_packed_nbytes(k, n, quants),
            "q8: the packed tensor must be contiguous and hold q8_packed_nbytes(k, n, quants) bytes");
}

void* as_userdata(const Q8Form& form) { return const_cast<Q8Form*>(&form); }

}  // namespace

const Q8Form* const* q8_available_forms(int* count) { return available_forms(count); }

const Q8Form* q8_choose_form(const char* wanted) {
    int count = 0;
    const Q8Form* const* forms = available_forms(&count);
    if (wanted == nullptr || *wanted == '\0') return forms[0] == &kQ8Portable ? nullptr : forms[0];
    if (std::strcmp(wanted, "off") == 0) return nullptr;
    std::string names;
    for (int i = 0; i < count; ++i) {
        if (std::strcmp(wanted, forms[i]->name) == 0) return forms[i];
        names += std::string(forms[i]->name) + ", ";
    }
    throw OptionError("RUSTASR_KERNELS: expected one of " + names +
                      "off (what this build and processor have); found '" + wanted + "'");
}

void q8_force_form(const Q8Form* form) { forced_form = form; }

const Q8Form* q8_active_form() {
    if (forced_form != nullptr) return forced_form;
    static const Q8Form* const chosen = q8_choose_form(std::getenv("RUSTASR_KERNELS"));
    return chosen;
}

const char* q8_form() {
    const Q8Form* form = q8_active_form();
    return form != nullptr ? form->name : "off";
}

bool q8_supported(int64_t k, int64_t n) {
    return k > 0 && k % kQ8Block == 0 && n > 0 && q8_active_form() != nullptr;
}

size_t q8_packed_nbytes(int64_t k, int64_t n, Quants quants) {
    return static_cast<size_t>(n_tiles(n) * q8_tile_nbytes(k, quants));
}

size_t q8_quantized_row_nbytes(int64_t k, Rounding rounding) {
    return static_cast<size_t>(static_cast<int64_t>(rounding) * (k + k / kQ8Block * 8));
}

void q8_pack(const void* file_rows, int64_t k, int64_t n, void* packed, int64_t row_begin, int64_t row_end,
             Quants quants) {
    const Q8Form& form = required_form();
    require(k > 0 && k % kQ8Block == 0 && n > 0,
            "q8_pack: k must be a positive multiple of 32 and n positive");
    require(row_begin >= 0 && row_begin % kQ8PackRows == 0 && row_end <= n &&
                (row_end % kQ8PackRows == 0 || row_end == n),
            "q8_pack: the range of rows must lie within [0, n] and start and end on multiples of 16 or at n");
    const int64_t row_nbytes = k / kQ8Block * file_block_nbytes(quants);
    for (int64_t row = row_begin; row < row_end; row += kQ8PackRows) {
        pack_tile(static_cast<const uint8_t*>(file_rows) + row * row_nbytes, std::min(kQ8PackRows, n - row),
                  k, quants, form.weight_xor,
                  static_cast<uint8_t*>(packed) + row / kQ8PackRows * q8_tile_nbytes(k, quants));
    }
}

namespace {

ggml_tensor* quantize_op(ggml_context* ctx, ggml_tensor* x, int64_t k, int64_t rows, Rounding rounding) {
    const Q8Form& form = required_form();
    require(x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && k % kQ8Block == 0,
            "q8_quantize: x must be F32 with adjacent elements in a row and rows of a multiple of 32");
    const int64_t row_nbytes = static_cast<int64_t>(q8_quantized_row_nbytes(k, rounding));
    ggml_tensor* xq = ggml_custom_4d(ctx, GGML_TYPE_I8, row_nbytes, rows, x->ne[2], x->ne[3], &x, 1,
                                     run_quantize, GGML_N_TASKS_MAX, as_userdata(form));
    xq->op_params[kParamRoundings] = static_cast<int32_t>(rounding);
    return xq;
}

}  // namespace

ggml_tensor* q8_quantize(ggml_context* ctx, ggml_tensor* x, Rounding rounding) {
    ggml_tensor* xq = quantize_op(ctx, x, x->ne[0], x->ne[1], rounding);
    xq->op_params[kParamStride] = 0;
    xq->op_params[kParamPadding] = 0;
    return xq;
}

ggml_tensor* q8_quantize_frames(ggml_context* ctx, ggml_tensor* x, int64_t taps, int64_t stride,
                                int64_t padding) {
    require(taps > 0 && stride > 0 && padding >= 0 && x->ne[1] + 2 * padding >= taps,
            "q8_quantize_frames: taps and stride must be positive, and taps at most the padded length");
    require(x->nb[1] == x->ne[0] * sizeof(float), "q8_quantize_frames: the frames of x must be adjacent");
    const int64_t rows = (x->ne[1] + 2 * padding - taps) / stride + 1;
    ggml_tensor* xq = quantize_op(ctx, x, x->ne[0] * taps, rows, Rounding::Once);
    xq->op_params[kParamStride] = static_cast<int32_t>(stride);
    xq->op_params[kParamPadding] = static_cast<int32_t>(padding);
    return xq;
}

ggml_tensor* q8_linear(ggml_context* ctx, ggml_tensor* packed_w, int64_t k, int64_t n, ggml_tensor* xq,
                       ggml_tensor* bias, Activation activation, ggml_tensor* residual, float scale,
                       Quants quants) {
    const Q8Form& form = required_form();
    require(residual != nullptr || scale == 1.0f, "q8_linear: a scale other than 1 needs a residual");
    check_packed(packed_w, k, n, quants);
    const int32_t roundings = xq->op_params[kParamRoundings];
    require(
        xq->op == GGML_OP_CUSTOM && xq->type == GGML_TYPE_I8 && ggml_is_contiguous(xq) &&
            static_cast<size_t>(xq->ne[0]) == q8_quantized_row_nbytes(k, static_cast<Rounding>(roundings)),
        "q8_linear: xq must come from q8_quantize of an x with the same k");
    ggml_tensor* args[4] = {packed_w, xq};
    int n_args = 2;
    int32_t flags = 0;
    if (bias != nullptr) {
        require(bias->type == GGML_TYPE_F32 && ggml_is_contiguous(bias) && ggml_nelements(bias) == n,
                "q8_linear: bias must be F32 [n]");
        args[n_args++] = bias;
        flags |= kHasBias;
    }
    if (residual != nullptr) {
        require(residual->type == GGML_TYPE_F32 && residual->nb[0] == sizeof(float) && residual->ne[0] == n &&
                    residual->ne[1] == xq->ne[1] && residual->ne[2] == xq->ne[2] &&
                    residual->ne[3] == xq->ne[3],
                "q8_linear: residual must be F32 of the result's shape with adjacent elements in a row");
        args[n_args++] = residual;
        flags |= kHasResidual;
    }
    ggml_tensor* y = ggml_custom_4d(ctx, GGML_TYPE_F32, n, xq->ne[1], xq->ne[2], xq->ne[3], args, n_args,
                                    run_linear, GGML_N_TASKS_MAX, as_userdata(form));
    y->op_params[kParamActivation] = static_cast<int32_t>(activation);
    y->op_params[kParamFlags] = flags;
    y->op_params[kParamRoundings] = roundings;
    y->op_params[kParamQuants] = static_cast<int32_t>(quants);
    std::memcpy(&y->op_params[kParamScale], &scale, sizeof(scale));
    return y;
}

ggml_tensor* q8_get_rows(ggml_context* ctx, ggml_tensor* packed_w, int64_t k, int64_t n, ggml_tensor* ids,
                         Quants quants) {
    const Q8Form& form = required_form();
    check_packed(packed_w, k, n, quants);
    require(ids->type == GGML_TYPE_I32 && ggml_is_contiguous(ids) && ids->ne[2] == 1 && ids->ne[3] == 1,
            "q8_get_rows: ids must be contiguous I32 [T, B]");
    ggml_tensor* args[2] = {packed_w, ids};
    ggml_tensor* y = ggml_custom_4d(ctx, GGML_TYPE_F32, k, ids->ne[0], ids->ne[1], 1, args, 2, run_get_rows,
                                    GGML_N_TASKS_MAX, as_userdata(form));
    y->op_params[kParamRows] = static_cast<int32_t>(n);
    y->op_params[kParamQuants] = static_cast<int32_t>(quants);
    return y;
}

}  // namespace rustasr::kernels
