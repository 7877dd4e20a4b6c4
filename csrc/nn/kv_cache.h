#pragma once
// Keys and values of what a decoder has read, for several windows with several hypotheses each.
//
// A window owns a row of cells; each token a hypothesis reads takes the next free cell, and a hypothesis sees
// the cells on its own path through the tree of hypotheses. So the prompt is stored once for all beams, and
// reordering beams copies a row of the mask, never keys or values.

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/graph.h"
#include "decode/autoregressive.h"

namespace rustasr {

class KvCache {
   public:
    /// Tensors for n_layer layers of [d, n_cells · n_windows] on the backend's device. Throws DeviceError.
    KvCache(const Backend& backend, int n_layer, int64_t d, int n_cells, int n_windows, ggml_type type);

    int n_cells() const { return n_cells_; }
    int n_windows() const { return n_windows_; }
    ggml_type type() const { return type_; }
    /// [d, n_cells · n_windows]
    ggml_tensor* keys(int layer) const { return keys_[static_cast<size_t>(layer)]; }
    ggml_tensor* values(int layer) const { return values_[static_cast<size_t>(layer)]; }

    // The book-keeping of a pass over n_rows new tokens in each window: cells() says where they go, mask()
    // what they see. It covers the first lengths.size() windows.

    /// Window w reads a prompt of lengths[w] <= n_rows tokens, causally; rows beyond are padding that nothing
    /// sees.
    void start(const std::vector<int>& lengths, int n_rows);
    /// Row r of window w continues its hypothesis branches[w][r].parent; missing rows are padding.
    void branch(const std::vector<std::vector<Branch>>& branches, int n_rows);

    /// Cells that any row sees, rounded up so that few different graphs are needed.
    int n_kv() const;
    /// Rows of keys() and values(), [n_rows · windows].
    const std::vector<int64_t>& cells() const { return cells_; }
    /// [n_kv, n_rows, 1, windows]: 0 where a row sees a cell, -inf elsewhere.
    std::vector<ggml_fp16_t> mask() const;

   private:
    using Path = std::vector<int>;  // the cells that a hypothesis sees, in order

    int n_cells_;
    int n_windows_;
    ggml_type type_;
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;
    std::vector<ggml_tensor*> keys_, values_;

    std::vector<int> used_;                      // cells of each window
    std::vector<std::vector<Path>> hypotheses_;  // per window; a single one after the prompt
    std::vector<Path> visible_;                  // per window and row of this pass
    std::vector<int64_t> cells_;
};

}  // namespace rustasr
