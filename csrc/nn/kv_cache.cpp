#include "nn/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace rustasr {
namespace {

constexpr int kCellStep = 64;

}  // namespace

KvCache::KvCache(const Backend& backend, int n_layer, int64_t d, int n_cells, int n_windows, ggml_type type)
    : n_cells_((n_cells + kCellStep - 1) / kCellStep * kCellStep), n_windows_(n_windows), type_(type) {
    context_.reset(
        ggml_init({(2 * static_cast<size_t>(n_layer) + 1) * ggml_tensor_overhead(), nullptr, true}));
    for (int layer = 0; layer < n_layer; ++layer) {
        const int64_t rows = static_cast<int64_t>(n_cells_) * n_windows;
        keys_.push_back(ggml_new_tensor_2d(context_.get(), type, d, rows));
        values_.push_back(ggml_new_tensor_2d(context_.get(), type, d, rows));
    }
    buffer_ = backend.allocate(context_.get(), "the decoder's cache");
    // Masked cells still take part in sums as 0 · value: whatever lay in the memory must not be a NaN.
    ggml_backend_buffer_clear(buffer_.get(), 0);
}

void KvCache::start(const std::vector<int>& lengths, int n_rows) {
    used_ = lengths;
    hypotheses_.clear();
    visible_.clear();
    cells_.clear();
    for (size_t w = 0; w < lengths.size(); ++w) {
        Path path;
        for (int row = 0; row < n_rows; ++row) {
            path.push_back(row);
            visible_.push_back(path);
            cells_.push_back(static_cast<int64_t>(w) * n_cells_ + row);
        }
        path.resize(static_cast<size_t>(lengths[w]));
        hypotheses_.push_back({std::move(path)});
    }
}

void KvCache::branch(const std::vector<std::vector<Branch>>& branches, int n_rows) {
    visible_.clear();
    cells_.clear();
    for (size_t w = 0; w < hypotheses_.size(); ++w) {
        std::vector<Path> next;
        for (int row = 0; row < n_rows; ++row) {
            const int cell = std::min(used_[w] + row, n_cells_ - 1);
            cells_.push_back(static_cast<int64_t>(w) * n_cells_ + cell);
            visible_.emplace_back();
            if (row >= static_cast<int>(branches[w].size())) continue;
            const auto parent = static_cast<size_t>(branches[w][static_cast<size_t>(row)].parent);
            Path path = hypotheses_[w].size() == 1 ? hypotheses_[w][0] : hypotheses_[w][parent];
            path.push_back(cell);
            visible_.back() = path;
            next.push_back(std::move(path));
        }
        if (next.empty()) continue;  // the window is done; its rows write where nothing reads again
        used_[w] += n_rows;
        hypotheses_[w] = std::move(next);
    }
}

int KvCache::n_kv() const {
    int last = 0;
    for (const Path& path : visible_) {
        if (!path.empty()) last = std::max(last, path.back() + 1);
    }
    return std::min((last + kCellStep - 1) / kCellStep * kCellStep, n_cells_);
}

std::vector<ggml_fp16_t> KvCache::mask() const {
    const ggml_fp16_t hidden = ggml_fp32_to_fp16(-std::numeric_limits<float>::infinity());
    const auto width = static_cast<size_t>(n_kv());
    std::vector<ggml_fp16_t> mask(width * visible_.size(), hidden);
    for (size_t row = 0; row < visible_.size(); ++row) {
        for (int cell : visible_[row]) mask[row * width + static_cast<size_t>(cell)] = 0;
    }
    return mask;
}

}  // namespace rustasr
