#include "nn/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/mapped_file.h"

namespace rustasr {
namespace {

constexpr int kCellStep = 64;

int rounded_up(int n) { return (n + kCellStep - 1) / kCellStep * kCellStep; }

}  // namespace

void KvCache::Path::append(int cell) {
    if (tail.empty() && cell == prefix) {
        ++prefix;
    } else {
        tail.push_back(cell);
    }
}

KvCache::KvCache(const Backend& backend, int n_layer, int64_t d_head, int64_t n_head, int n_cells,
                 int n_windows, ggml_type type)
    : n_cells_(rounded_up(n_cells)), n_windows_(n_windows), type_(type) {
    context_.reset(
        ggml_init({(2 * static_cast<size_t>(n_layer) + 1) * ggml_tensor_overhead(), nullptr, true}));
    for (int layer = 0; layer < n_layer; ++layer) {
        for (auto* tensors : {&keys_, &values_})
            tensors->push_back(ggml_new_tensor_4d(context_.get(), type, d_head, n_cells_, n_head, n_windows));
    }
    buffer_ = backend.allocate(context_.get(), "the decoder's cache");
    if (ggml_backend_buffer_is_host(buffer_.get())) {  // every step reads all of it
        MappedFile::advise_large_pages(ggml_backend_buffer_get_base(buffer_.get()),
                                       ggml_backend_buffer_get_size(buffer_.get()));
    }
    reset(n_windows);
}

// Masked cells still take part in sums as 0 · value: whatever lay in the memory must not be a NaN. Only cells
// that are about to be looked at are touched, so that a cache made for the longest text that is allowed takes
// memory for the text that there is (where the system hands out pages on first use).
void KvCache::clear_cells() {
    const int needed = n_kv();
    if (needed <= n_cleared_) return;
    for (const auto* tensors : {&keys_, &values_}) {
        for (ggml_tensor* tensor : *tensors) {
            const size_t cell = tensor->nb[1], head = tensor->nb[2];
            for (size_t i = 0; i < static_cast<size_t>(tensor->ne[2] * tensor->ne[3]); ++i) {
                ggml_backend_tensor_memset(tensor, 0, head * i + cell * static_cast<size_t>(n_cleared_),
                                           cell * static_cast<size_t>(needed - n_cleared_));
            }
        }
    }
    n_cleared_ = needed;
}

KvCache::KvCache(const Backend& backend, const KvCache& from, int n_cells)
    : KvCache(backend, static_cast<int>(from.keys_.size()), from.keys_[0]->ne[0], from.keys_[0]->ne[2],
              n_cells, from.n_windows_, from.type_) {
    GGML_ASSERT(n_cells_ >= from.n_cells_);
    const auto copy = [&](const ggml_tensor* source, ggml_tensor* target) {
        std::vector<char> cells(source->nb[1] * static_cast<size_t>(from.n_cleared_));
        for (size_t i = 0; i < static_cast<size_t>(source->ne[2] * source->ne[3]); ++i) {
            ggml_backend_tensor_get(source, cells.data(), source->nb[2] * i, cells.size());
            ggml_backend_tensor_set(target, cells.data(), target->nb[2] * i, cells.size());
        }
    };
    for (size_t layer = 0; layer < keys_.size(); ++layer) {
        copy(from.keys_[layer], keys_[layer]);
        copy(from.values_[layer], values_[layer]);
    }
    n_cleared_ = from.n_cleared_;
    used_ = from.used_;
    hypotheses_ = from.hypotheses_;
}

ggml_tensor* KvCache::store(Graph& graph, ggml_tensor* cache, ggml_tensor* rows, ggml_tensor* cells,
                            int first, int64_t n_kv) {
    const auto windows = [&](ggml_tensor* all, int64_t n_cells, size_t offset) {
        return ggml_view_4d(graph.ctx(), all, all->ne[0], n_cells, all->ne[2], rows->ne[3], all->nb[1],
                            all->nb[2], all->nb[3], offset);
    };
    ggml_tensor* mine = windows(cache, cache->ne[1], cache->nb[3] * static_cast<size_t>(first));
    return windows(ggml_set_rows(graph.ctx(), mine, rows, cells), n_kv, 0);
}

void KvCache::use(int n_windows) {
    GGML_ASSERT(n_windows <= n_windows_);
    used_.resize(static_cast<size_t>(n_windows), 0);
    hypotheses_.resize(static_cast<size_t>(n_windows), {Path{}});
}

void KvCache::reset(int n_windows) {
    used_.clear();
    hypotheses_.clear();
    use(n_windows);
}

bool KvCache::has_room(int n_rows) const {
    return std::all_of(used_.begin(), used_.end(), [&](int used) { return used + n_rows <= n_cells_; });
}

void KvCache::rewind(int window, int n_tokens) {
    const auto w = static_cast<size_t>(window);
    GGML_ASSERT(n_tokens <= hypotheses_[w][0].prefix);
    used_[w] = n_tokens;
    hypotheses_[w] = {Path{n_tokens, {}}};
}

void KvCache::read(int first, const std::vector<int>& counts, int n_rows) {
    n_rows_ = n_rows;
    visible_.clear();
    cells_.clear();
    for (size_t i = 0; i < counts.size(); ++i) {
        const size_t w = static_cast<size_t>(first) + i;
        const Path begun = hypotheses_[w][0];
        for (int row = 0; row < n_rows; ++row) {
            const int cell = std::min(used_[w] + row, n_cells_ - 1);
            cells_.push_back(cell);
            visible_.push_back(row == 0 ? begun : visible_.back());
            visible_.back().append(cell);
        }
        used_[w] += counts[i];
        hypotheses_[w] = {begun};
        for (int cell = used_[w] - counts[i]; cell < used_[w]; ++cell) hypotheses_[w][0].append(cell);
    }
    clear_cells();
}

void KvCache::branch(const std::vector<std::vector<Branch>>& branches, int n_rows) {
    n_rows_ = n_rows;
    visible_.clear();
    cells_.clear();
    for (size_t w = 0; w < hypotheses_.size(); ++w) {
        std::vector<Path> next;
        for (int row = 0; row < n_rows; ++row) {
            const int cell = std::min(used_[w] + row, n_cells_ - 1);
            cells_.push_back(cell);
            visible_.emplace_back();
            if (row >= static_cast<int>(branches[w].size())) continue;
            const auto parent = static_cast<size_t>(branches[w][static_cast<size_t>(row)].parent);
            Path path = hypotheses_[w].size() == 1 ? hypotheses_[w][0] : hypotheses_[w][parent];
            path.append(cell);
            visible_.back() = path;
            next.push_back(std::move(path));
        }
        if (next.empty()) continue;  // the window is done; its rows write where nothing reads again
        used_[w] += n_rows;
        hypotheses_[w] = std::move(next);
    }
    clear_cells();
}

int KvCache::n_kv() const {
    int last = 0;
    for (const Path& path : visible_) last = std::max(last, path.end());
    return std::min(rounded_up(last), n_cells_);
}

std::vector<ggml_fp16_t> KvCache::mask() const {
    const ggml_fp16_t hidden = ggml_fp32_to_fp16(-std::numeric_limits<float>::infinity());
    const auto width = static_cast<size_t>(n_kv());
    std::vector<ggml_fp16_t> mask(width * visible_.size(), hidden);
    for (size_t row = 0; row < visible_.size(); ++row) {
        ggml_fp16_t* seen = &mask[row * width];
        std::fill_n(seen, visible_[row].prefix, ggml_fp16_t{0});
        for (int cell : visible_[row].tail) seen[cell] = 0;
    }
    return mask;
}

std::vector<int32_t> KvCache::offsets() const {
    std::vector<int32_t> offsets;
    for (size_t row = 0; row < visible_.size(); row += static_cast<size_t>(n_rows_))
        offsets.push_back(std::max(0, visible_[row].prefix - 1));
    return offsets;
}

}  // namespace rustasr
