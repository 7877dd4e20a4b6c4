#pragma once
// Writes GGUF images for tests, well-formed or deliberately not: every field can be given any value.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace rustasr::test {

/// Bytes appended one little-endian value after another.
class Bytes {
   public:
    template <typename T>
    Bytes& put(T value) {
        const auto* at = reinterpret_cast<const uint8_t*>(&value);
        bytes_.insert(bytes_.end(), at, at + sizeof value);
        return *this;
    }
    Bytes& raw(const std::string& text) {
        bytes_.insert(bytes_.end(), text.begin(), text.end());
        return *this;
    }
    Bytes& raw(const Bytes& other) {
        bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
        return *this;
    }
    Bytes& str(const std::string& text) { return put<uint64_t>(text.size()).raw(text); }
    Bytes& zeros(size_t n) {
        bytes_.resize(bytes_.size() + n);
        return *this;
    }
    size_t size() const { return bytes_.size(); }
    const std::vector<uint8_t>& get() const { return bytes_; }

   private:
    std::vector<uint8_t> bytes_;
};

/// The numbers of the value types in the file.
enum GgufType : uint32_t { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

/// A file put together from finished records; the counts and the padding follow unless they are set.
struct GgufImage {
    std::string magic = "GGUF";
    uint32_t version = 3;
    int64_t n_entries = -1;  // -1: as many as there are
    int64_t n_tensors = -1;
    size_t alignment = 32;
    size_t data_bytes = 0;
    std::vector<Bytes> entries;
    std::vector<Bytes> tensors;

    template <typename T>
    GgufImage& scalar(const std::string& key, uint32_t type, T value) {
        entries.push_back(Bytes().str(key).put<uint32_t>(type).put(value));
        return *this;
    }
    GgufImage& string(const std::string& key, const std::string& value) {
        entries.push_back(Bytes().str(key).put<uint32_t>(STRING).str(value));
        return *this;
    }
    template <typename T>
    GgufImage& array(const std::string& key, uint32_t element, const std::vector<T>& values) {
        Bytes entry = array_head(key, element, values.size());
        for (const T value : values) entry.put(value);
        entries.push_back(entry);
        return *this;
    }
    GgufImage& strings(const std::string& key, const std::vector<std::string>& values) {
        Bytes entry = array_head(key, STRING, values.size());
        for (const std::string& value : values) entry.str(value);
        entries.push_back(entry);
        return *this;
    }
    GgufImage& tensor(const std::string& name, const std::vector<uint64_t>& ne, uint32_t type,
                      uint64_t offset) {
        Bytes record = Bytes().str(name).put<uint32_t>(static_cast<uint32_t>(ne.size()));
        for (const uint64_t n : ne) record.put(n);
        tensors.push_back(record.put(type).put(offset));
        return *this;
    }

    static Bytes array_head(const std::string& key, uint32_t element, uint64_t count) {
        return Bytes().str(key).put<uint32_t>(ARRAY).put(element).put(count);
    }

    /// Everything before the padding and the data.
    Bytes header() const {
        Bytes out = Bytes().raw(magic).put(version);
        out.put<uint64_t>(n_tensors < 0 ? tensors.size() : static_cast<uint64_t>(n_tensors));
        out.put<uint64_t>(n_entries < 0 ? entries.size() : static_cast<uint64_t>(n_entries));
        for (const Bytes& entry : entries) out.raw(entry);
        for (const Bytes& record : tensors) out.raw(record);
        return out;
    }

    /// The whole file. Data byte i is i % 251, so that a wrong offset shows.
    std::vector<uint8_t> bytes() const {
        Bytes out = header();
        out.zeros((alignment - out.size() % alignment) % alignment);
        for (size_t i = 0; i < data_bytes; ++i) out.put(static_cast<uint8_t>(i % 251));
        return out.get();
    }
};

}  // namespace rustasr::test
