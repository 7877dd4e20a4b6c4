#pragma once
// The checking half of the GGUF reader: walks the header once, front to back. Private to gguf.cpp and
// gguf_parser.cpp; everybody else opens a GgufFile.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/gguf.h"

namespace rustasr {

/// "u32", "array of i32", ... for messages.
std::string meta_type_name(MetaType type);
/// Bytes of one fixed-size value; 0 for strings and arrays.
size_t meta_type_size(MetaType type);

class GgufParser {
   public:
    explicit GgufParser(GgufFile& out);
    /// Fills `out`, or throws ModelFileError.
    void run();

   private:
    // Where in the file we are, for messages: the header, the i-th metadata entry or the i-th tensor.
    struct Place {
        const char* kind = nullptr;  // nullptr: the header
        uint64_t index = 0;
        std::string_view name;  // empty until it has been read
    };

    void read_header();
    void read_metadata();
    void read_value(GgufFile::Entry& entry);
    void read_array(GgufFile::Entry& entry);
    void read_alignment();
    void read_tensor_table();
    void read_tensor(TensorInfo& tensor);
    void read_shape(TensorInfo& tensor);
    void read_type(TensorInfo& tensor);
    void place_tensors();
    void check_overlaps() const;

    template <typename T>
    T read(const char* what);
    // A length and that many bytes, of which `what` tells the purpose ("the key").
    std::string_view read_string(const char* what);
    // A key or tensor name: not empty, at most `max` bytes, no control characters, not seen before.
    std::string_view read_name(const char* what, uint64_t max, std::map<std::string_view, uint32_t>& seen);
    // The next n bytes exist and lie within the allowed header size.
    void need(uint64_t n, const char* what) const;
    void check_bools(uint64_t n) const;
    uint64_t remaining() const { return size_ - pos_; }
    [[noreturn]] void fail(uint64_t byte, const std::string& expected, const std::string& found,
                           const std::string& advice = {}) const;

    GgufFile& out_;
    const uint8_t* data_;
    uint64_t size_;
    uint64_t pos_ = 0;
    Place place_;
    uint64_t n_tensors_ = 0;
    uint64_t n_entries_ = 0;
    uint64_t array_elements_ = 0;                // so far, of all arrays
    std::map<std::string_view, uint32_t> keys_;  // sorted, and free of hash collisions
    std::map<std::string_view, uint32_t> names_;
    std::vector<uint64_t> offset_field_at_;  // byte of each tensor's offset field
};

}  // namespace rustasr
