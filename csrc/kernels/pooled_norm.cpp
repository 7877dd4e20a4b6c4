#include "kernels/pooled_norm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/error.h"
#include "kernels/clones.h"

namespace rustasr::kernels {
namespace {

enum Param { kPool = 8, kAbsolute, kSlope, kEpsilon };  // behind what ggml keeps of a custom operation

constexpr int kBlock = 16;  // channels at a time: a cache line of each row

struct Rows {
    const float* x;
    int64_t stride, y_stride;  // floats from row to row
    int64_t n;                 // of the result
    float* y;
};

// y = the greatest of `pool` rows of x each, of |x| where sign is -1.
RUSTASR_CLONES void pool_rows(const Rows& rows, int64_t width, int64_t pool, float sign) {
    for (int64_t t = 0; t < rows.n; ++t) {
        const float* x = rows.x + t * pool * rows.stride;
        float* y = rows.y + t * rows.y_stride;
        for (int64_t c = 0; c < width; ++c) y[c] = std::max(x[c], x[c] * sign);
        for (int64_t i = 1; i < pool; ++i) {
            x += rows.stride;
            for (int64_t c = 0; c < width; ++c) y[c] = std::max(y[c], std::max(x[c], x[c] * sign));
        }
    }
}

// Means and variances over time, in double precision.
RUSTASR_CLONES void statistics(const Rows& rows, int64_t width, double* mean, double* variance) {
    for (int64_t t = 0; t < rows.n; ++t) {
        const float* y = rows.y + t * rows.y_stride;
        for (int64_t c = 0; c < width; ++c) mean[c] += static_cast<double>(y[c]);
    }
    for (int64_t c = 0; c < width; ++c) mean[c] /= static_cast<double>(rows.n);
    for (int64_t t = 0; t < rows.n; ++t) {
        const float* y = rows.y + t * rows.y_stride;
        for (int64_t c = 0; c < width; ++c) {
            const double off = static_cast<double>(y[c]) - mean[c];
            variance[c] += off * off;
        }
    }
    for (int64_t c = 0; c < width; ++c) variance[c] /= static_cast<double>(rows.n);
}

RUSTASR_CLONES void scale_rows(const Rows& rows, int64_t width, const float* scale, const float* mean,
                               const float* bias, float slope) {
    for (int64_t t = 0; t < rows.n; ++t) {
        float* y = rows.y + t * rows.y_stride;
        for (int64_t c = 0; c < width; ++c) {
            const float v = (y[c] - mean[c]) * scale[c] + bias[c];
            y[c] = std::max(v, 0.0f) + slope * std::min(v, 0.0f);
        }
    }
}

float number(const ggml_tensor* t, int param) {
    float value = 0;
    std::memcpy(&value, &t->op_params[param], sizeof(value));
    return value;
}

void compute(ggml_tensor* y, int ith, int nth, void*) {
    const ggml_tensor *x = y->src[0], *weight = y->src[1], *bias = y->src[2];
    const int64_t n_blocks = (y->ne[0] + kBlock - 1) / kBlock;
    for (int64_t block = ith; block < n_blocks; block += nth) {
        const int64_t first = block * kBlock, width = std::min<int64_t>(kBlock, y->ne[0] - first);
        const Rows rows = {static_cast<const float*>(x->data) + first,
                           static_cast<int64_t>(x->nb[1] / sizeof(float)), y->ne[0], y->ne[1],
                           static_cast<float*>(y->data) + first};
        pool_rows(rows, width, y->op_params[kPool], y->op_params[kAbsolute] ? -1.0f : 1.0f);
        double mean[kBlock] = {}, variance[kBlock] = {};
        statistics(rows, width, mean, variance);
        float centre[kBlock] = {}, scale[kBlock] = {};
        for (int64_t c = 0; c < width; ++c) {
            const double deviation = std::sqrt(variance[c] + static_cast<double>(number(y, kEpsilon)));
            centre[c] = static_cast<float>(mean[c]);
            scale[c] = static_cast<float>(
                static_cast<double>(static_cast<const float*>(weight->data)[first + c]) / deviation);
        }
        scale_rows(rows, width, scale, centre, static_cast<const float*>(bias->data) + first,
                   number(y, kSlope));
    }
}

bool is_row(const ggml_tensor* t, int64_t n) {
    return t->type == GGML_TYPE_F32 && ggml_is_contiguous(t) && ggml_nelements(t) == n;
}

void set(ggml_tensor* t, int param, float value) { std::memcpy(&t->op_params[param], &value, sizeof(value)); }

}  // namespace

ggml_tensor* pooled_norm(ggml_context* ctx, ggml_tensor* x, const PooledNormArgs& args) {
    if (x->type != GGML_TYPE_F32 || x->nb[0] != sizeof(float) || x->ne[2] * x->ne[3] != 1)
        throw OptionError("pooled_norm: expected x in F32 of one sequence, with adjacent channels");
    if (args.pool < 1 || x->ne[1] < args.pool)
        throw OptionError("pooled_norm: expected " + std::to_string(args.pool) + " places or more");
    if (!is_row(args.weight, x->ne[0]) || !is_row(args.bias, x->ne[0]))
        throw OptionError("pooled_norm: expected a weight and a bias for every channel in F32");
    ggml_tensor* operands[] = {x, args.weight, args.bias};
    ggml_tensor* y = ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], x->ne[1] / args.pool, 1, 1, operands, 3,
                                    compute, GGML_N_TASKS_MAX, nullptr);
    y->op_params[kPool] = args.pool;
    y->op_params[kAbsolute] = args.absolute;
    set(y, kSlope, args.leaky_slope);
    set(y, kEpsilon, static_cast<float>(args.eps));
    return y;
}

}  // namespace rustasr::kernels
