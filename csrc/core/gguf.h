#pragma once
// Reads GGUF v2 and v3 (little-endian) from a memory map, and believes nothing in it: every count, length,
// type, dimension and offset is checked against the bytes that remain before it is used or memory is taken
// for it. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
//   magic "GGUF" | version u32 | n_tensors u64 | n_kv u64
//   n_kv      x  key string | type u32 | value
//   n_tensors x  name string | n_dims u32 | ne u64 [n_dims] | type u32 | offset u64 (from the start of the
//   data) padding to general.alignment | tensor data
//
// Every failure is a ModelFileError that names the file, the key or tensor, the byte, what was expected, what
// was found and what to try.

#include <ggml.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/mapped_file.h"
#include "core/text.h"

namespace rustasr {

/// One tensor of the file. Shapes are in ggml's order: ne[0] is the fastest dimension; unused ones are 1.
struct TensorInfo {
    std::string name;
    ggml_type type = GGML_TYPE_F32;  // one of F32 F16 BF16 Q8_0 Q6_K Q5_K Q4_K Q4_0
    int n_dims = 0;                  // 1..4
    int64_t ne[4] = {1, 1, 1, 1};
    uint64_t offset = 0;  // absolute byte in the file
    uint64_t nbytes = 0;
    const void* data = nullptr;  // into the mapping; lives as long as the GgufFile
};

/// The value types of GGUF, numbered as in the file.
enum class MetaType : uint32_t {
    kU8 = 0,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64
};

/// A metadata value for showing and for Python: integers and floats widened, arrays decoded.
using MetaValue =
    std::variant<bool, uint64_t, int64_t, double, std::string, std::vector<bool>, std::vector<uint64_t>,
                 std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

/// An opened, fully checked GGUF file. Immutable, so it may be shared between threads.
class GgufFile {
   public:
    // What no speech model comes near; beyond it a file is refused whatever its size.
    static constexpr uint64_t kMaxKeys = 1u << 16;
    static constexpr uint64_t kMaxTensors = 1u << 16;
    static constexpr uint64_t kMaxKeyBytes = 256;
    static constexpr uint64_t kMaxTensorNameBytes = GGML_MAX_NAME - 1;  // fits ggml_tensor::name
    static constexpr uint64_t kMaxMetadataBytes = uint64_t{64} << 20;   // header, keys and tensor table
    static constexpr uint64_t kMaxArrayElements = uint64_t{1} << 20;    // of all arrays of the file together

    /// Maps and checks the file. Throws ModelFileError.
    static std::shared_ptr<const GgufFile> open(const std::string& path);
    /// The same on bytes that are mapped already. Throws ModelFileError.
    static std::shared_ptr<const GgufFile> parse(std::shared_ptr<const MappedFile> file);

    const std::string& path() const { return file_->path(); }
    const MappedFile& file() const { return *file_; }
    uint32_t version() const { return version_; }
    uint64_t alignment() const { return alignment_; }
    /// Byte where the tensor data starts (the end of the table, rounded up to alignment()).
    uint64_t data_offset() const { return data_offset_; }

    // Metadata. A missing key or another type than asked for (no conversions) is a ModelFileError.
    bool has(const std::string& key) const;
    uint32_t u32(const std::string& key) const;
    /// As above, and the value must lie in [min, max].
    uint32_t u32(const std::string& key, uint32_t min, uint32_t max) const;
    /// Finite: a NaN or an infinity is a ModelFileError.
    float f32(const std::string& key) const;
    bool boolean(const std::string& key) const;
    /// Valid UTF-8. Copied out of the mapping at every call.
    std::string str(const std::string& key) const;
    std::vector<int32_t> i32_array(const std::string& key) const;
    std::vector<std::string> str_array(const std::string& key) const;

    /// All keys in file order, and any value by key.
    std::vector<std::string> keys() const;
    MetaValue value(const std::string& key) const;

    /// All tensors in file order; names are unique.
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    /// nullptr when the file has no tensor of that name.
    const TensorInfo* find(const std::string& name) const;

   private:
    friend class GgufParser;
    struct Entry {  // where a value lies in the file; decoded when asked for
        std::string key;
        MetaType type = MetaType::kU8;
        MetaType element = MetaType::kU8;  // of an array
        uint64_t count = 1;                // elements of an array, bytes of a string
        uint64_t offset = 0;               // byte of the value, after the counts
    };

    explicit GgufFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}
    const Entry* find_entry(const std::string& key) const;
    const Entry& entry(const std::string& key, MetaType type, MetaType element = MetaType::kU8) const;

    std::shared_ptr<const MappedFile> file_;
    uint32_t version_ = 0;
    uint64_t alignment_ = 32;
    uint64_t data_offset_ = 0;
    std::vector<Entry> entries_;
    std::vector<uint32_t> entries_by_key_;  // indices of entries_, sorted by key
    std::vector<TensorInfo> tensors_;
    std::vector<uint32_t> tensors_by_name_;  // indices of tensors_, sorted by name
};

}  // namespace rustasr
