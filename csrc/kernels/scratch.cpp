#include "kernels/scratch.h"

#include <memory>
#include <new>

namespace rustasr::kernels {

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

}  // namespace rustasr::kernels
