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
    /// Tensors for n_layer layers on the backend's device. Throws DeviceError.
    KvCache(const Backend& backend, int n_layer, int64_t d_head, int64_t n_head, int n_cells, int n_windows,
            ggml_type type);
    /// The same contents with room for n_cells (more than before) in each window.
    KvCache(const Backend& backend, const KvCache& from, int n_cells);

    int n_cells() const { return n_cells_; }
    int n_windows() const { return n_windows_; }
    ggml_type type() const { return type_; }
    /// [d_head, n_cells, n_head, n_windows]: attention reads what a head has as one stream.
    ggml_tensor* keys(int layer) const { return keys_[static_cast<size_t>(layer)]; }
    ggml_tensor* values(int layer) const { return values_[static_cast<size_t>(layer)]; }

    /// In a graph: puts `rows` [d_head, n_tokens, n_head, batch] into the cells [n_tokens, 1, batch] of
    /// windows from `first` on of keys() or values(). The result is the first n_kv cells of these windows
    /// [d_head, n_kv, n_head, batch], for attention, so that the write comes before it.
    static ggml_tensor* store(Graph& graph, ggml_tensor* cache, ggml_tensor* rows, ggml_tensor* cells,
                              int first, int64_t n_kv);

    /// The first n windows are in use; those that were keep what they hold, new ones hold nothing.
    void use(int n_windows);
    /// Forgets everything; n windows are in use.
    void reset(int n_windows);
    /// Whether every window has a cell for each of n_rows more tokens.
    bool has_room(int n_rows) const;
    /// Window w holds the first n tokens of its (single) hypothesis and nothing else.
    void rewind(int window, int n_tokens);

    // The book-keeping of a pass over n_rows new tokens in each of some neighbouring windows: cells() says
    // where they go, mask() what they see.

    /// Window first + i reads the next counts[i] <= n_rows tokens of its single hypothesis, causally; rows
    /// beyond are padding that nothing sees.
    void read(int first, const std::vector<int>& counts, int n_rows);
    /// Row r of window w, from window 0 on, continues its hypothesis branches[w][r].parent; missing rows are
    /// padding.
    void branch(const std::vector<std::vector<Branch>>& branches, int n_rows);

    /// Cells that any row sees, rounded up so that few different graphs are needed.
    int n_kv() const;
    /// Of each row the cell of its window, [n_rows, windows].
    const std::vector<int64_t>& cells() const { return cells_; }
    /// [n_kv, n_rows, 1, windows]: 0 where a row sees a cell, -inf elsewhere.
    std::vector<ggml_fp16_t> mask() const;
    /// For every window of the pass how many cells its first row sees besides its own: with one hypothesis to
    /// a window these are the first ones, and the rows see each other causally.
    std::vector<int32_t> offsets() const;

   private:
    struct Path {  // the cells that a hypothesis sees: those before `prefix`, then `tail` in order
        int prefix = 0;
        std::vector<int> tail;

        int end() const { return tail.empty() ? prefix : tail.back() + 1; }
        void append(int cell);
    };

    void clear_cells();

    int n_cells_;
    int n_windows_;
    ggml_type type_;
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;
    std::vector<ggml_tensor*> keys_, values_;
    int n_cleared_ = 0;  // cells of each window that have been written or set to zero

    std::vector<int> used_;                      // cells of each window
    std::vector<std::vector<Path>> hypotheses_;  // per window; a single one after the prompt
    int n_rows_ = 1;                             // of a window in this pass
    std::vector<Path> visible_;                  // per window and row of this pass
    std::vector<int64_t> cells_;
};

}  // namespace rustasr
