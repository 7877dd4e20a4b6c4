#include "kernels/dense_convolution.h"

#include <algorithm>
#include <cstring>

#include "ggml.h"
#include "kernels/q8_matmul_form.h"
#include "kernels/scratch.h"

namespace rustasr::kernels {
namespace {

constexpr int64_t kStride = 2;
constexpr int kParamTaps = 8, kParamActivation = 9,
              kParamQuants = 10;  // behind what ggml keeps of a custom operation

int64_t halved(int64_t n) { return (n - 1) / kStride + 1; }

// Where the taps of one output of x [C, F, T, B] lie.
class Patch {
   public:
    Patch(const ggml_tensor* x, const ggml_tensor* dst, int64_t taps, int64_t row)
        : x_(x),
          taps_(taps),
          mel_(row % dst->ne[1] * kStride - taps / 2),
          frame_(row / dst->ne[1] % dst->ne[2] * kStride - taps / 2),
          batch_(row / dst->ne[1] / dst->ne[2]) {}

    // Calls visit(first tap, number of taps, their values or null) for runs of taps that are neighbours in
    // memory, or outside.
    template <class Visit>
    void runs(const Visit& visit) const {
        const int64_t first = std::max<int64_t>(0, -mel_), last = std::min(taps_, x_->ne[1] - mel_);
        for (int64_t t = 0; t < taps_; ++t) {
            const int64_t frame = frame_ + t, tap = t * taps_;
            if (frame < 0 || frame >= x_->ne[2]) {
                visit(tap, taps_, nullptr);
                continue;
            }
            if (first > 0) visit(tap, first, nullptr);
            visit(tap + first, last - first,
                  static_cast<const char*>(x_->data) + static_cast<size_t>(mel_ + first) * x_->nb[1] +
                      static_cast<size_t>(frame) * x_->nb[2] + static_cast<size_t>(batch_) * x_->nb[3]);
            if (last < taps_) visit(tap + last, taps_ - last, nullptr);
        }
    }

   private:
    const ggml_tensor* x_;
    int64_t taps_, mel_, frame_, batch_;
};

void run_patches(ggml_tensor* dst, int ith, int nth, void*) {
    const ggml_tensor* x = dst->src[0];
    const int64_t rows = ggml_nrows(dst), taps = dst->op_params[kParamTaps];
    const auto channel = static_cast<size_t>(x->ne[0]) * sizeof(float);
    for (int64_t row = rows * ith / nth; row < rows * (ith + 1) / nth; ++row) {
        char* out = static_cast<char*>(dst->data) + static_cast<size_t>(row) * dst->nb[1];
        Patch(x, dst, taps, row).runs([&](int64_t tap, int64_t n, const char* values) {
            char* to = out + static_cast<size_t>(tap) * channel;
            const size_t bytes = static_cast<size_t>(n) * channel;
            if (values) {
                std::memcpy(to, values, bytes);
            } else {
                std::memset(to, 0, bytes);
            }
        });
    }
}

// One quantised row of k = taps² · C values from those of its places: values, scales, corrections (see
// q8_matmul_form.h). Outside all three are zero.
void gather(const Patch& patch, int64_t channels, int64_t k, size_t place_nbytes, uint8_t* out) {
    const auto n_values = static_cast<size_t>(channels), n_scales = n_values / kQ8Block * 4;
    const size_t parts[3][2] = {{0, n_values}, {n_values, n_scales}, {n_values + n_scales, n_scales}};
    const size_t begins[3] = {0, static_cast<size_t>(k), static_cast<size_t>(k + k / kQ8Block * 4)};
    patch.runs([&](int64_t first, int64_t n, const char* places) {
        for (int part = 0; part < 3; ++part) {
            const auto [offset, bytes] = parts[part];
            uint8_t* to = out + begins[part] + static_cast<size_t>(first) * bytes;
            if (!places) {
                std::memset(to, 0, static_cast<size_t>(n) * bytes);
                continue;
            }
            for (int64_t i = 0; i < n; ++i, to += bytes)
                std::memcpy(to, places + static_cast<size_t>(i) * place_nbytes + offset, bytes);
        }
    });
}

void run_convolution(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const Q8Form& form = *static_cast<const Q8Form*>(userdata);
    const ggml_tensor *xq = dst->src[1], *bias = dst->src[2];
    const int64_t taps = dst->op_params[kParamTaps], channels = xq->ne[0] / (kQ8Block + 8) * kQ8Block;
    Q8Product p = {};
    p.roundings = 1;
    p.weights = static_cast<const uint8_t*>(dst->src[0]->data);
    p.k = taps * taps * channels;
    p.quants = static_cast<Quants>(dst->op_params[kParamQuants]);
    p.n = dst->ne[0];
    p.x_row_nbytes = static_cast<int64_t>(q8_quantized_row_nbytes(p.k));
    p.bias = bias ? static_cast<const float*>(bias->data) : nullptr;
    p.activation = static_cast<Activation>(dst->op_params[kParamActivation]);

    // So many rows at a time that they and a chunk of the weights share the second-level cache, but so few
    // that every thread gets several blocks.
    constexpr int64_t kBlockNbytes = 320 * 1024;
    const int64_t rows = ggml_nrows(dst);
    const int64_t most = std::min(kBlockNbytes / p.x_row_nbytes, rows / (4 * nth));
    const int64_t block = std::max<int64_t>(1, most / form.rows) * form.rows;
    auto* scratch = reinterpret_cast<uint8_t*>(thread_scratch(static_cast<size_t>(block * p.x_row_nbytes)));
    p.x = scratch;
    const int64_t n_blocks = (rows + block - 1) / block, tiles = (p.n + kQ8PackRows - 1) / kQ8PackRows;
    for (int64_t i = n_blocks * ith / nth; i < n_blocks * (ith + 1) / nth; ++i) {
        const int64_t begin = i * block, count = std::min(block, rows - begin);
        for (int64_t row = 0; row < count; ++row) {
            gather(Patch(xq, dst, taps, begin + row), channels, p.k, xq->nb[1],
                   scratch + row * p.x_row_nbytes);
        }
        p.y = static_cast<float*>(dst->data) + begin * p.n;
        form.product(p, 0, tiles, 0, count);
    }
}

}  // namespace

ggml_tensor* convolution_patches(ggml_context* ctx, ggml_tensor* x, int64_t taps) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && taps % 2 == 1);
    ggml_tensor* y =
        ggml_custom_4d(ctx, GGML_TYPE_F32, taps * taps * x->ne[0], halved(x->ne[1]), halved(x->ne[2]),
                       x->ne[3], &x, 1, run_patches, GGML_N_TASKS_MAX, nullptr);
    y->op_params[kParamTaps] = static_cast<int32_t>(taps);
    return y;
}

ggml_tensor* q8_convolution(ggml_context* ctx, ggml_tensor* packed_w, int64_t n, ggml_tensor* xq,
                            int64_t taps, ggml_tensor* bias, Activation activation, Quants quants) {
    const Q8Form* form = q8_active_form();
    GGML_ASSERT(form && xq->type == GGML_TYPE_I8 && ggml_is_contiguous(xq) && taps % 2 == 1);
    const int64_t k = taps * taps * (xq->ne[0] / (kQ8Block + 8) * kQ8Block);
    GGML_ASSERT(ggml_nbytes(packed_w) >= q8_packed_nbytes(k, n, quants));
    GGML_ASSERT(!bias || (bias->type == GGML_TYPE_F32 && ggml_nelements(bias) == n));
    ggml_tensor* args[3] = {packed_w, xq, bias};
    ggml_tensor* y =
        ggml_custom_4d(ctx, GGML_TYPE_F32, n, halved(xq->ne[1]), halved(xq->ne[2]), xq->ne[3], args,
                       bias ? 3 : 2, run_convolution, GGML_N_TASKS_MAX, const_cast<Q8Form*>(form));
    y->op_params[kParamTaps] = static_cast<int32_t>(taps);
    y->op_params[kParamActivation] = static_cast<int32_t>(activation);
    y->op_params[kParamQuants] = static_cast<int32_t>(quants);
    return y;
}

}  // namespace rustasr::kernels
