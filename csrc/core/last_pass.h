#pragma once
// The graph of the last shape, kept between calls. Another shape takes its memory: building a graph anew is
// quick (0.2 ms for the decoder of tiny.en, 0.3 ms for that of Qwen3-ASR 0.6B, a millisecond or a few for a
// conformer), and over hours every shape comes by; memory for each would grow with the recording.

#include <memory>
#include <utility>

#include "core/graph.h"

namespace rustasr {

/// `Shape` has ==, `Pass` has a `graph`.
template <class Shape, class Pass>
class LastPass {
   public:
    /// The pass of `shape`, by build(GraphMemory) → std::unique_ptr<Pass> where the last one was of another.
    template <class Build>
    Pass& of(const Shape& shape, const Build& build) {
        if (!pass_ || !(shape_ == shape)) {
            GraphMemory memory = pass_ ? pass_->graph.give_memory() : GraphMemory{};
            pass_.reset();
            pass_ = build(std::move(memory));
            shape_ = shape;
        }
        return *pass_;
    }

    void clear() { pass_.reset(); }

   private:
    Shape shape_{};
    std::unique_ptr<Pass> pass_;
};

}  // namespace rustasr
