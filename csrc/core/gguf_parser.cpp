#include "core/gguf_parser.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/file_kind.h"
#include "core/text.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The GGUF reader copies little-endian values as they are"
#endif

namespace rustasr {

namespace {

// The fewest bytes that a metadata entry (key length, one letter, type, one byte of value) and a tensor
// (name length, one letter, n_dims, one dimension, type, offset) can take.
constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

constexpr char kDamaged[] = "The file is damaged or incomplete: download or convert it again.";

std::string plural(uint64_t n, const char* unit) {
    return std::to_string(n) + " " + unit + (n == 1 ? "" : "s");
}

bool is_allowed(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q4_0:
            return true;
        default:
            return false;
    }
}

bool has_control_character(std::string_view text) {
    return std::any_of(text.begin(), text.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte < 0x20 || byte == 0x7F;
    });
}

}  // namespace

std::string meta_type_name(MetaType type) {
    static const char* const kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
    return kNames[static_cast<size_t>(type)];
}

size_t meta_type_size(MetaType type) {
    static const size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return kSizes[static_cast<size_t>(type)];
}

GgufParser::GgufParser(GgufFile& out) : out_(out), data_(out.file().data()), size_(out.file().size()) {}

void GgufParser::run() {
    read_header();
    read_metadata();
    read_alignment();
    read_tensor_table();
    place_tensors();
    check_overlaps();
}

// ---- the three parts of the header ----

void GgufParser::read_header() {
    if (size_ < 4 || std::memcmp(data_, "GGUF", 4) != 0) {
        const FileKind kind = recognise_foreign_file(data_, static_cast<size_t>(size_));
        fail(0, "a GGUF model (magic \"GGUF\")", kind.name, kind.advice);
    }
    pos_ = 4;
    const auto version = read<uint32_t>("the version");
    if ((version & 0xFFFF) == 0 && version != 0) {
        fail(4, "a little-endian GGUF file",
             "a big-endian one (its version reads " + std::to_string(version) + ")",
             "Convert the model again on a little-endian machine.");
    }
    if (version != 2 && version != 3) {
        fail(4, "GGUF version 2 or 3", "version " + std::to_string(version),
             version == 1 ? "Convert the original model again."
                          : "Convert the model with this rustasr, or update it.");
    }
    out_.version_ = version;
    n_tensors_ = read<uint64_t>("the number of tensors");
    n_entries_ = read<uint64_t>("the number of metadata entries");

    const auto check_count = [&](uint64_t byte, uint64_t found, uint64_t most, uint64_t min_bytes,
                                 const char* unit) {
        const uint64_t fitting = std::min(most, remaining() / min_bytes);
        if (found > fitting) {
            fail(byte, "at most " + plural(fitting, unit) + " (" + plural(remaining(), "byte") + " follow)",
                 std::to_string(found));
        }
    };
    check_count(8, n_tensors_, GgufFile::kMaxTensors, kMinTensorBytes, "tensor");
    check_count(16, n_entries_, GgufFile::kMaxKeys, kMinEntryBytes, "metadata key");
}

void GgufParser::read_metadata() {
    out_.entries_.reserve(static_cast<size_t>(n_entries_));  // at most kMaxKeys, and the file is long enough
    for (uint64_t i = 0; i < n_entries_; ++i) {
        place_ = {"metadata key", i, {}};
        GgufFile::Entry entry;
        entry.key = read_name("the key", GgufFile::kMaxKeyBytes, keys_);
        read_value(entry);
        out_.entries_.push_back(std::move(entry));
    }
    for (const auto& [key, index] : keys_) out_.entries_by_key_.push_back(index);
}

void GgufParser::read_tensor_table() {
    out_.tensors_.reserve(static_cast<size_t>(n_tensors_));
    for (uint64_t i = 0; i < n_tensors_; ++i) {
        place_ = {"tensor", i, {}};
        TensorInfo tensor;
        tensor.name = read_name("the name", GgufFile::kMaxTensorNameBytes, names_);
        read_tensor(tensor);
        out_.tensors_.push_back(std::move(tensor));
    }
    for (const auto& [name, index] : names_) out_.tensors_by_name_.push_back(index);
}

// ---- metadata ----

void GgufParser::read_value(GgufFile::Entry& entry) {
    const auto type = read<uint32_t>("the value type");
    if (type > static_cast<uint32_t>(MetaType::kF64)) {
        fail(pos_ - 4, "a value type from 0 to 12", std::to_string(type));
    }
    entry.type = static_cast<MetaType>(type);
    if (entry.type == MetaType::kArray) {
        read_array(entry);
    } else if (entry.type == MetaType::kString) {
        entry.count = read_string("the string").size();
        entry.offset = pos_ - entry.count;
    } else {
        entry.offset = pos_;
        need(meta_type_size(entry.type), "the value");
        if (entry.type == MetaType::kBool) check_bools(1);
        pos_ += meta_type_size(entry.type);
    }
}

void GgufParser::read_array(GgufFile::Entry& entry) {
    const auto element = read<uint32_t>("the element type");
    if (element > static_cast<uint32_t>(MetaType::kF64)) {
        fail(pos_ - 4, "an element type from 0 to 12", std::to_string(element));
    }
    entry.element = static_cast<MetaType>(element);
    if (entry.element == MetaType::kArray) {
        fail(pos_ - 4, "an array of plain values", "an array of arrays",
             "Convert the model with `rustasr convert`.");
    }
    entry.count = read<uint64_t>("the array length");
    entry.offset = pos_;
    const uint64_t min_bytes = entry.element == MetaType::kString ? 8 : meta_type_size(entry.element);
    const uint64_t most = GgufFile::kMaxArrayElements - array_elements_;
    if (entry.count > remaining() / min_bytes || entry.count > most) {
        const uint64_t fitting = std::min(most, remaining() / min_bytes);
        fail(pos_ - 8,
             "an array of at most " + plural(fitting, "element") + " (" + plural(remaining(), "byte") +
                 " follow)",
             std::to_string(entry.count));
    }
    array_elements_ += entry.count;
    if (entry.element == MetaType::kString) {
        for (uint64_t i = 0; i < entry.count; ++i) read_string("a string of the array");
    } else {
        need(entry.count * min_bytes, "the array");  // cannot overflow: count fits the file
        if (entry.element == MetaType::kBool) check_bools(entry.count);
        pos_ += entry.count * min_bytes;
    }
}

void GgufParser::read_alignment() {
    const auto found = keys_.find("general.alignment");
    if (found == keys_.end()) return;
    const GgufFile::Entry& entry = out_.entries_[found->second];
    place_ = {"metadata key", found->second, found->first};
    if (entry.type != MetaType::kU32)
        fail(entry.offset, "a u32", "a value of type " + meta_type_name(entry.type));
    uint32_t alignment = 0;
    std::memcpy(&alignment, data_ + entry.offset, sizeof alignment);
    if (alignment < 32 || alignment > 4096 || (alignment & (alignment - 1)) != 0) {
        fail(entry.offset, "a power of two from 32 to 4096", std::to_string(alignment));
    }
    out_.alignment_ = alignment;
}

// ---- tensors ----

void GgufParser::read_tensor(TensorInfo& tensor) {
    read_shape(tensor);
    read_type(tensor);
    offset_field_at_.push_back(pos_);
    tensor.offset = read<uint64_t>("the offset");  // from the start of the data, until place_tensors
    if (tensor.offset % out_.alignment_ != 0) {
        fail(pos_ - 8, "an offset that is a multiple of the alignment, " + std::to_string(out_.alignment_),
             std::to_string(tensor.offset));
    }
}

void GgufParser::read_shape(TensorInfo& tensor) {
    const auto n_dims = read<uint32_t>("the number of dimensions");
    if (n_dims < 1 || n_dims > 4) fail(pos_ - 4, "1 to 4 dimensions", std::to_string(n_dims));
    tensor.n_dims = static_cast<int>(n_dims);
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    uint64_t elements = 1;
    for (uint32_t d = 0; d < n_dims; ++d) {
        const auto ne = read<uint64_t>("a dimension");
        if (ne < 1) fail(pos_ - 8, "dimension " + std::to_string(d) + " of at least 1", "0");
        if (ne > kMax / elements) {
            fail(pos_ - 8, "a shape with fewer than 2^63 elements",
                 "dimension " + std::to_string(d) + " = " + std::to_string(ne));
        }
        elements *= ne;
        tensor.ne[d] = static_cast<int64_t>(ne);
    }
}

void GgufParser::read_type(TensorInfo& tensor) {
    const auto number = read<uint32_t>("the tensor type");
    const std::string allowed = "one of F32 F16 BF16 Q8_0 Q6_K Q5_K Q4_K Q4_0";
    const std::string advice = "Convert or quantise the original model with `rustasr convert`.";
    if (number >= GGML_TYPE_COUNT)
        fail(pos_ - 4, allowed, "the unknown type " + std::to_string(number), advice);
    tensor.type = static_cast<ggml_type>(number);
    if (!is_allowed(tensor.type)) {
        const char* name = ggml_type_name(tensor.type);
        fail(pos_ - 4, allowed,
             "type " + std::to_string(number) + (name ? " (" + std::string(name) + ")" : ""), advice);
    }
    const int64_t block = ggml_blck_size(tensor.type);
    if (tensor.ne[0] % block != 0) {
        // ggml asserts this in debug builds only and reads short rows otherwise.
        fail(pos_ - 4,
             std::string("rows of a multiple of ") + std::to_string(block) + " elements for type " +
                 ggml_type_name(tensor.type),
             std::to_string(tensor.ne[0]), "Quantise the original model again with `rustasr quantize`.");
    }
    const uint64_t elements = static_cast<uint64_t>(tensor.ne[0]) * static_cast<uint64_t>(tensor.ne[1]) *
                              static_cast<uint64_t>(tensor.ne[2]) *
                              static_cast<uint64_t>(tensor.ne[3]);  // < 2^63: read_shape
    const uint64_t blocks = elements / static_cast<uint64_t>(block);
    // More than the whole file is refused here, so that the product below cannot overflow.
    if (blocks > size_ / ggml_type_size(tensor.type)) {
        fail(pos_ - 4, "a tensor that fits the file of " + plural(size_, "byte"),
             std::to_string(elements) + " elements of type " + ggml_type_name(tensor.type), kDamaged);
    }
    tensor.nbytes = blocks * ggml_type_size(tensor.type);
}

void GgufParser::place_tensors() {
    place_ = {};
    const uint64_t start = (pos_ + out_.alignment_ - 1) / out_.alignment_ * out_.alignment_;
    out_.data_offset_ = start;
    for (size_t i = 0; i < out_.tensors_.size(); ++i) {
        TensorInfo& tensor = out_.tensors_[i];
        place_ = {"tensor", i, tensor.name};
        const uint64_t data_bytes = size_ > start ? size_ - start : 0;
        if (tensor.offset > data_bytes || tensor.nbytes > data_bytes - tensor.offset) {
            fail(offset_field_at_[i],
                 plural(tensor.nbytes, "byte") + " of data at offset " + std::to_string(tensor.offset),
                 plural(data_bytes, "byte") + " of tensor data in the file (" + plural(size_, "byte") + ")",
                 kDamaged);
        }
        tensor.offset += start;
        tensor.data = data_ + tensor.offset;
    }
}

void GgufParser::check_overlaps() const {
    std::vector<uint32_t> order(out_.tensors_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return out_.tensors_[a].offset < out_.tensors_[b].offset; });
    for (size_t i = 1; i < order.size(); ++i) {
        const TensorInfo& before = out_.tensors_[order[i - 1]];
        const TensorInfo& after = out_.tensors_[order[i]];
        if (before.offset + before.nbytes > after.offset) {
            throw ModelFileError(in_quotes(out_.path()) + ": tensor " + in_quotes(after.name) + ", byte " +
                                 std::to_string(offset_field_at_[order[i]]) +
                                 ": expected data of its own, found that it overlaps tensor " +
                                 in_quotes(before.name) + " at byte " + std::to_string(after.offset) + ". " +
                                 kDamaged);
        }
    }
}

// ---- reading ----

void GgufParser::need(uint64_t n, const char* what) const {
    if (n > remaining()) {
        fail(pos_, plural(n, "byte") + " for " + what,
             "the end of the file (" + plural(remaining(), "byte") + " left)");
    }
    if (pos_ + n > GgufFile::kMaxMetadataBytes) {
        fail(pos_, "a header of at most " + plural(GgufFile::kMaxMetadataBytes, "byte"),
             plural(n, "byte") + " more for " + what);
    }
}

template <typename T>
T GgufParser::read(const char* what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, data_ + pos_, sizeof value);
    pos_ += sizeof value;
    return value;
}

std::string_view GgufParser::read_string(const char* what) {
    const auto length = read<uint64_t>("a string length");
    need(length, what);
    const std::string_view text(reinterpret_cast<const char*>(data_) + pos_, static_cast<size_t>(length));
    if (!is_utf8(text)) fail(pos_, std::string("UTF-8 in ") + what, in_quotes(text, 60));
    pos_ += length;
    return text;
}

std::string_view GgufParser::read_name(const char* what, uint64_t max,
                                       std::map<std::string_view, uint32_t>& seen) {
    const uint64_t at = pos_;
    const std::string_view name = read_string(what);
    if (name.empty() || name.size() > max) {
        fail(at, std::string(what) + " of 1 to " + std::to_string(max) + " bytes",
             plural(name.size(), "byte"));
    }
    if (has_control_character(name))
        fail(at, std::string(what) + " without control characters", in_quotes(name, 60));
    if (!seen.emplace(name, static_cast<uint32_t>(place_.index)).second) {
        fail(at, std::string(what) + " to be unique",
             in_quotes(name) + " a second time (first as number " + std::to_string(seen.find(name)->second) +
                 ")");
    }
    place_.name = name;
    return name;
}

void GgufParser::check_bools(uint64_t n) const {
    for (uint64_t i = pos_; i < pos_ + n; ++i) {
        if (data_[i] > 1) fail(i, "a bool, 0 or 1", std::to_string(data_[i]));
    }
}

void GgufParser::fail(uint64_t byte, const std::string& expected, const std::string& found,
                      const std::string& advice) const {
    std::string where = "header";
    if (place_.kind != nullptr) {
        where = place_.kind;
        where +=
            place_.name.empty() ? " number " + std::to_string(place_.index) : " " + in_quotes(place_.name);
    }
    throw ModelFileError(in_quotes(out_.path(), 4096) + ": " + where + ", byte " + std::to_string(byte) +
                         ": expected " + expected + ", found " + found + ". " +
                         (advice.empty() ? kDamaged : advice));
}

}  // namespace rustasr
