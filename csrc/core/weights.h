#pragma once
// The tensors of a model file as the modules see them. `Weights / "conv1"` narrows the prefix, so a module's
// path is its tensors' path in the file, and constructing the modules validates the file: every `get` checks
// the shape, and tensors that nothing asked for are an error. Data moves only after that, in `load`.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/gguf.h"
#include "ggml-cpp.h"
#include "kernels/q8_matmul.h"

namespace rustasr {

/// A matrix [k, n] that is only ever multiplied with, so that it may lie in a layout made for that.
struct MatMulWeight {
    ggml_tensor* tensor = nullptr;  // [k, n], or opaque bytes when `packed`
    int64_t k = 0;
    int64_t n = 0;
    std::optional<kernels::Quants> packed = {};  // for kernels::q8_linear
};

class WeightStore;

/// A view of the store under one prefix. Cheap to copy.
class Weights {
   public:
    Weights operator/(const std::string& name) const { return {store_, path(name) + "."}; }
    Weights operator/(int index) const { return *this / std::to_string(index); }

    /// The tensor of exactly this shape (ggml order). Throws ModelFileError.
    ggml_tensor* get(const std::string& name, std::initializer_list<int64_t> shape) const;
    /// The same, F32 only: norms, biases, tables.
    ggml_tensor* get_f32(const std::string& name, std::initializer_list<int64_t> shape) const;
    /// A table that the host reads, in the memory map: F32, not copied to the device.
    const float* host_f32(const std::string& name, std::initializer_list<int64_t> shape) const;
    /// A matrix [k, n] in the fastest layout that the device has for its type.
    MatMulWeight matmul(const std::string& name, int64_t k, int64_t n) const;

   private:
    friend class WeightStore;
    Weights(WeightStore* store, std::string prefix) : store_(store), prefix_(std::move(prefix)) {}
    std::string path(const std::string& name) const { return prefix_ + name; }

    WeightStore* store_;
    std::string prefix_;
};

/// Owns the weights of one model on one device. Large tensors of types the CPU reads as they are in the file
/// stay in the memory map; the others are copied, or packed, once, and the file's pages are given back.
class WeightStore {
   public:
    WeightStore(std::shared_ptr<const GgufFile> file, ggml_backend_dev_t device);

    Weights root() { return {this, ""}; }
    /// After all modules are constructed: refuses unclaimed tensors, then fills every tensor using n_threads.
    void load(int n_threads);

    const GgufFile& file() const { return *file_; }
    ggml_backend_dev_t device() const { return device_; }
    size_t nbytes() const { return nbytes_; }  // of weights on the device

   private:
    friend class Weights;
    enum class Place { Default, Packed };
    struct Slot {
        const TensorInfo* source;
        ggml_tensor* tensor;
        Place place;
    };

    const TensorInfo& claim(const std::string& name, std::initializer_list<int64_t> shape);
    const TensorInfo& claim_f32(const std::string& name, std::initializer_list<int64_t> shape);
    ggml_tensor* add(const TensorInfo& source, Place place);
    Place place_for(const TensorInfo& source);
    void check_all_claimed() const;
    void map_or_copy();
    /// Memory of the device for the tensors of a place that have none yet. Throws DeviceError.
    void allocate(Place place, ggml_backend_buffer_type_t type);
    void copy_into(Place place, ggml_backend_buffer_type_t type);
    void pack(int n_threads);

    std::shared_ptr<const GgufFile> file_;
    ggml_backend_dev_t device_;
    std::vector<ggml_context_ptr> contexts_;  // by Place
    std::vector<ggml_backend_buffer_ptr> buffers_;
    std::vector<Slot> slots_;
    std::set<std::string> claimed_;
    size_t nbytes_ = 0;
};

}  // namespace rustasr
