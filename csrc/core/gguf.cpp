#include "core/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/error.h"
#include "core/gguf_parser.h"
#include "core/text.h"

namespace rustasr {

namespace {

constexpr char kConvertAgain[] = "Convert the original model again with this version of `rustasr convert`.";

[[noreturn]] void fail(const GgufFile& file, const std::string& key, const std::string& expected,
                       const std::string& found) {
    throw ModelFileError(in_quotes(file.path(), 4096) + ": metadata key " + in_quotes(key) + ": expected " +
                         expected + ", found " + found + ". " + kConvertAgain);
}

std::string type_text(MetaType type, MetaType element) {
    return type == MetaType::kArray ? "array of " + meta_type_name(element) : meta_type_name(type);
}

template <typename T>
T load(const uint8_t* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// `Out` elements from `count` packed values of type `In`.
template <typename In, typename Out>
std::vector<Out> load_array(const uint8_t* at, uint64_t count) {
    std::vector<Out> out(static_cast<size_t>(count));
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<Out>(load<In>(at + i * sizeof(In)));
    return out;
}

// The parser has checked every length of it.
std::vector<std::string> load_strings(const uint8_t* at, uint64_t count) {
    std::vector<std::string> out;
    out.reserve(static_cast<size_t>(count));
    for (uint64_t i = 0; i < count; ++i) {
        const auto length = static_cast<size_t>(load<uint64_t>(at));
        out.emplace_back(reinterpret_cast<const char*>(at + sizeof(uint64_t)), length);
        at += sizeof(uint64_t) + length;
    }
    return out;
}

template <typename In, typename Out>
MetaValue load_any(const uint8_t* at, bool is_array, uint64_t count) {
    if (is_array) return load_array<In, Out>(at, count);
    return static_cast<Out>(load<In>(at));
}

}  // namespace

std::shared_ptr<const GgufFile> GgufFile::open(const std::string& path) {
    return parse(MappedFile::open(path));
}

std::shared_ptr<const GgufFile> GgufFile::parse(std::shared_ptr<const MappedFile> file) {
    std::shared_ptr<GgufFile> out(new GgufFile(std::move(file)));
    GgufParser(*out).run();
    return out;
}

const TensorInfo* GgufFile::find(const std::string& name) const {
    const auto at =
        std::lower_bound(tensors_by_name_.begin(), tensors_by_name_.end(), name,
                         [&](uint32_t i, const std::string& wanted) { return tensors_[i].name < wanted; });
    return at != tensors_by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

const GgufFile::Entry* GgufFile::find_entry(const std::string& key) const {
    const auto at =
        std::lower_bound(entries_by_key_.begin(), entries_by_key_.end(), key,
                         [&](uint32_t i, const std::string& wanted) { return entries_[i].key < wanted; });
    return at != entries_by_key_.end() && entries_[*at].key == key ? &entries_[*at] : nullptr;
}

const GgufFile::Entry& GgufFile::entry(const std::string& key, MetaType type, MetaType element) const {
    const Entry* found = find_entry(key);
    const std::string expected = type_text(type, element);
    if (found == nullptr) fail(*this, key, expected, "no such key");
    if (found->type != type || (type == MetaType::kArray && found->element != element)) {
        fail(*this, key, expected, type_text(found->type, found->element));
    }
    return *found;
}

bool GgufFile::has(const std::string& key) const { return find_entry(key) != nullptr; }

uint32_t GgufFile::u32(const std::string& key) const {
    return load<uint32_t>(file_->data() + entry(key, MetaType::kU32).offset);
}

uint32_t GgufFile::u32(const std::string& key, uint32_t min, uint32_t max) const {
    const uint32_t value = u32(key);
    if (value < min || value > max) {
        fail(*this, key, "a u32 from " + std::to_string(min) + " to " + std::to_string(max),
             std::to_string(value));
    }
    return value;
}

float GgufFile::f32(const std::string& key) const {
    const auto value = load<float>(file_->data() + entry(key, MetaType::kF32).offset);
    if (!std::isfinite(value)) fail(*this, key, "a finite f32", std::isnan(value) ? "NaN" : "an infinity");
    return value;
}

bool GgufFile::boolean(const std::string& key) const {
    return file_->data()[entry(key, MetaType::kBool).offset] != 0;
}

std::string GgufFile::str(const std::string& key) const {
    const Entry& at = entry(key, MetaType::kString);
    return std::string(reinterpret_cast<const char*>(file_->data()) + at.offset,
                       static_cast<size_t>(at.count));
}

std::vector<int32_t> GgufFile::i32_array(const std::string& key) const {
    const Entry& at = entry(key, MetaType::kArray, MetaType::kI32);
    return load_array<int32_t, int32_t>(file_->data() + at.offset, at.count);
}

std::vector<std::string> GgufFile::str_array(const std::string& key) const {
    const Entry& at = entry(key, MetaType::kArray, MetaType::kString);
    return load_strings(file_->data() + at.offset, at.count);
}

std::vector<std::string> GgufFile::keys() const {
    std::vector<std::string> out;
    out.reserve(entries_.size());
    for (const Entry& entry : entries_) out.push_back(entry.key);
    return out;
}

MetaValue GgufFile::value(const std::string& key) const {
    const Entry* found = find_entry(key);
    if (found == nullptr) fail(*this, key, "a value", "no such key");
    const bool is_array = found->type == MetaType::kArray;
    const uint8_t* at = file_->data() + found->offset;
    switch (is_array ? found->element : found->type) {
        case MetaType::kU8:
            return load_any<uint8_t, uint64_t>(at, is_array, found->count);
        case MetaType::kI8:
            return load_any<int8_t, int64_t>(at, is_array, found->count);
        case MetaType::kU16:
            return load_any<uint16_t, uint64_t>(at, is_array, found->count);
        case MetaType::kI16:
            return load_any<int16_t, int64_t>(at, is_array, found->count);
        case MetaType::kU32:
            return load_any<uint32_t, uint64_t>(at, is_array, found->count);
        case MetaType::kI32:
            return load_any<int32_t, int64_t>(at, is_array, found->count);
        case MetaType::kF32:
            return load_any<float, double>(at, is_array, found->count);
        case MetaType::kBool:
            return load_any<uint8_t, bool>(at, is_array, found->count);
        case MetaType::kU64:
            return load_any<uint64_t, uint64_t>(at, is_array, found->count);
        case MetaType::kI64:
            return load_any<int64_t, int64_t>(at, is_array, found->count);
        case MetaType::kF64:
            return load_any<double, double>(at, is_array, found->count);
        case MetaType::kString:
            if (is_array) return load_strings(at, found->count);
            return std::string(reinterpret_cast<const char*>(at), static_cast<size_t>(found->count));
        case MetaType::kArray:
            break;  // arrays of arrays do not get past the parser
    }
    fail(*this, key, "a known type", "type " + std::to_string(static_cast<uint32_t>(found->type)));
}

}  // namespace rustasr
