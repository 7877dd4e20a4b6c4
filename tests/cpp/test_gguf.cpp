// The GGUF reader: a good file gives back what was written, and every kind of malformed one a ModelFileError
// that names the place. The images are made here, byte by byte (gguf_writer.h).

#include <ctime>
#include <limits>
#include <set>

#include "check.h"
#include "core/error.h"
#include "core/gguf.h"
#include "gguf_writer.h"

namespace rustasr::test {

namespace {

using Parsed = std::shared_ptr<const GgufFile>;

Parsed parse(std::vector<uint8_t> bytes) {
    return GgufFile::parse(MappedFile::of_bytes(std::move(bytes), "test.gguf"));
}
Parsed parse(const GgufImage& image) { return parse(image.bytes()); }
Parsed parse(const Bytes& bytes) { return parse(bytes.get()); }
Parsed parse(const std::string& text) { return parse(Bytes().raw(text)); }

#define REFUSED(file, part) CHECK_THROWS(parse(file), ModelFileError, part)

// One value of every type and five tensors; small enough to damage at every byte.
GgufImage good_image() {
    GgufImage image;
    image.scalar<uint8_t>("u8", U8, 200).scalar<int8_t>("i8", I8, -100);
    image.scalar<uint16_t>("u16", U16, 60000).scalar<int16_t>("i16", I16, -30000);
    image.scalar<uint32_t>("u32", U32, 4000000000u).scalar<int32_t>("i32", I32, -2000000000);
    image.scalar<uint64_t>("u64", U64, 1ull << 63).scalar<int64_t>("i64", I64, -(int64_t{1} << 62));
    image.scalar<float>("f32", F32, 0.5f).scalar<double>("f64", F64, -0.25);
    image.scalar<uint8_t>("yes", BOOL, 1).scalar<uint8_t>("no", BOOL, 0);
    image.string("text", "na\xC3\xAFve").string("empty", "");
    image.array<int32_t>("i32s", I32, {3, -1, 4}).array<uint8_t>("bools", BOOL, {1, 0, 1});
    image.array<float>("f32s", F32, {1.5f, -2.5f}).array<int32_t>("none", I32, {});
    image.array<uint8_t>("u8s", U8, {255})
        .array<int8_t>("i8s", I8, {-1})
        .array<uint16_t>("u16s", U16, {65535});
    image.array<int16_t>("i16s", I16, {-2}).array<uint32_t>("u32s", U32, {1u << 31});
    image.array<uint64_t>("u64s", U64, {~uint64_t{0}}).array<int64_t>("i64s", I64, {-3});
    image.array<double>("f64s", F64, {0.125});
    image.strings("strs", {"en", "", "\xD1\x80\xD1\x83"}).strings("no strs", {});
    image.scalar<uint32_t>("general.alignment", U32, 64);
    image.alignment = 64;
    image.tensor("a.weight", {64, 3}, GGML_TYPE_Q8_0, 0);  // 6 blocks of 34 bytes = 204
    image.tensor("a.bias", {3}, GGML_TYPE_F32, 256);       // 12
    image.tensor("b", {2, 3, 1, 5}, GGML_TYPE_F16, 320);   // 60
    image.tensor("c", {256, 2}, GGML_TYPE_Q6_K, 512);      // 2 blocks of 210 bytes = 420
    image.tensor("d", {32}, GGML_TYPE_Q4_0, 384);          // 18, out of order in the file
    image.data_bytes = 512 + 420;
    return image;
}

// Reads everything that an opened file offers, as a sanitizer's bait.
uint64_t touch(const GgufFile& file) {
    uint64_t sum = 0;
    for (const std::string& key : file.keys()) {
        const MetaValue value = file.value(key);
        sum += value.index() + key.size();
    }
    for (const TensorInfo& tensor : file.tensors()) {
        const auto* bytes = static_cast<const uint8_t*>(tensor.data);
        sum += bytes[0] + bytes[tensor.nbytes - 1];
        if (file.find(tensor.name) != &tensor) fail(__FILE__, __LINE__, "find() misses a tensor");
    }
    return sum;
}

// True when the image opens, false when it is refused as it should be; anything else escapes and fails the
// case.
bool opens(const std::vector<uint8_t>& bytes) {
    try {
        touch(*parse(bytes));
        return true;
    } catch (const ModelFileError& error) {
        if (!is_utf8(error.what())) fail(__FILE__, __LINE__, "a message that is no UTF-8");
        return false;
    }
}

GgufImage one_key(const Bytes& entry) {
    GgufImage image;
    image.entries = {entry};
    return image;
}

GgufImage one_tensor(const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset = 0,
                     size_t data_bytes = 4096) {
    GgufImage image;
    image.tensor("w", ne, type, offset);
    image.data_bytes = data_bytes;
    return image;
}

}  // namespace

// ---- good files ----

TEST_CASE("gguf: every value type comes back as written") {
    const Parsed file = parse(good_image());
    CHECK(file->version() == 3);
    CHECK(file->path() == "test.gguf");
    CHECK(file->u32("u32") == 4000000000u);
    CHECK(file->f32("f32") == 0.5f);
    CHECK(file->boolean("yes") && !file->boolean("no"));
    CHECK(file->str("text") == "na\xC3\xAFve");
    CHECK(file->str("empty").empty());
    CHECK((file->i32_array("i32s") == std::vector<int32_t>{3, -1, 4}));
    CHECK(file->i32_array("none").empty());
    CHECK((file->str_array("strs") == std::vector<std::string>{"en", "", "\xD1\x80\xD1\x83"}));
    CHECK(file->str_array("no strs").empty());
    CHECK(file->value("u8") == MetaValue(uint64_t{200}));
    CHECK(file->value("i8") == MetaValue(int64_t{-100}));
    CHECK(file->value("u16") == MetaValue(uint64_t{60000}));
    CHECK(file->value("i16") == MetaValue(int64_t{-30000}));
    CHECK(file->value("u32") == MetaValue(uint64_t{4000000000u}));
    CHECK(file->value("i32") == MetaValue(int64_t{-2000000000}));
    CHECK(file->value("u64") == MetaValue(uint64_t{1} << 63));
    CHECK(file->value("i64") == MetaValue(-(int64_t{1} << 62)));
    CHECK(file->value("f32") == MetaValue(0.5));
    CHECK(file->value("f64") == MetaValue(-0.25));
    CHECK(file->value("yes") == MetaValue(true));
    CHECK(file->value("text") == MetaValue(std::string("na\xC3\xAFve")));
    CHECK((file->value("bools") == MetaValue(std::vector<bool>{true, false, true})));
    CHECK((file->value("f32s") == MetaValue(std::vector<double>{1.5, -2.5})));
    CHECK((file->value("i32s") == MetaValue(std::vector<int64_t>{3, -1, 4})));
    CHECK((file->value("u8s") == MetaValue(std::vector<uint64_t>{255})));
    CHECK((file->value("i8s") == MetaValue(std::vector<int64_t>{-1})));
    CHECK((file->value("u16s") == MetaValue(std::vector<uint64_t>{65535})));
    CHECK((file->value("i16s") == MetaValue(std::vector<int64_t>{-2})));
    CHECK((file->value("u32s") == MetaValue(std::vector<uint64_t>{1u << 31})));
    CHECK((file->value("u64s") == MetaValue(std::vector<uint64_t>{~uint64_t{0}})));
    CHECK((file->value("i64s") == MetaValue(std::vector<int64_t>{-3})));
    CHECK((file->value("f64s") == MetaValue(std::vector<double>{0.125})));
    CHECK((file->value("strs") == MetaValue(std::vector<std::string>{"en", "", "\xD1\x80\xD1\x83"})));
    CHECK(file->keys().size() == good_image().entries.size());
    CHECK(file->keys().front() == "u8" && file->keys().back() == "general.alignment");
    CHECK(file->has("u32") && !file->has("u3"));
}

TEST_CASE("gguf: tensors have their shape, place and bytes") {
    const Parsed file = parse(good_image());
    CHECK(file->alignment() == 64 && file->data_offset() % 64 == 0);
    REQUIRE(file->tensors().size() == 5);
    CHECK(file->tensors()[0].name == "a.weight" && file->tensors()[4].name == "d");
    const TensorInfo* b = file->find("b");
    REQUIRE(b != nullptr);
    CHECK(b->type == GGML_TYPE_F16 && b->n_dims == 4 && b->nbytes == 60);
    CHECK(b->ne[0] == 2 && b->ne[1] == 3 && b->ne[2] == 1 && b->ne[3] == 5);
    CHECK(b->offset == file->data_offset() + 320);
    CHECK(b->data == file->file().data() + b->offset);
    CHECK(*static_cast<const uint8_t*>(b->data) == 320 % 251);
    const TensorInfo* bias = file->find("a.bias");
    REQUIRE(bias != nullptr);
    CHECK(bias->n_dims == 1 && bias->ne[0] == 3 && bias->ne[1] == 1 && bias->ne[3] == 1);
    CHECK(file->find("a.weight")->nbytes == 204);
    CHECK(file->find("c")->nbytes == 420);
    CHECK(file->find("d")->nbytes == 18);
    CHECK(file->find("a") == nullptr);
    CHECK(file->find("") == nullptr);
}

TEST_CASE("gguf: version 2, default alignment, files without tensors or keys") {
    GgufImage image = one_tensor({4}, GGML_TYPE_F32);
    image.version = 2;
    CHECK(parse(image)->alignment() == 32);
    CHECK(parse(image)->version() == 2);
    const Parsed empty = parse(GgufImage().header());  // not even padding
    CHECK(empty->tensors().empty() && empty->keys().empty() && empty->find("w") == nullptr);
}

TEST_CASE("gguf: every allowed tensor type has ggml's size") {
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q6_K,
                                 GGML_TYPE_Q5_K, GGML_TYPE_Q4_K, GGML_TYPE_Q4_0}) {
        const Parsed file = parse(one_tensor({256, 3}, type));
        CHECK(file->tensors()[0].nbytes == 3 * ggml_row_size(type, 256));
    }
}

// ---- accessors ----

TEST_CASE("gguf: a missing key or another type names key, both types and file") {
    const Parsed file = parse(good_image());
    CHECK_THROWS(file->u32("n_vocab"), ModelFileError,
                 "\"test.gguf\": metadata key \"n_vocab\": expected u32, found no such key. Convert");
    CHECK_THROWS(file->u32("i32"), ModelFileError, "metadata key \"i32\": expected u32, found i32");
    CHECK_THROWS(file->f32("f64"), ModelFileError, "expected f32, found f64");
    CHECK_THROWS(file->boolean("u8"), ModelFileError, "expected bool, found u8");
    CHECK_THROWS(file->str("strs"), ModelFileError, "expected string, found array of string");
    CHECK_THROWS(file->str_array("text"), ModelFileError, "expected array of string, found string");
    CHECK_THROWS(file->str_array("i32s"), ModelFileError, "expected array of string, found array of i32");
    CHECK_THROWS(file->i32_array("f32s"), ModelFileError, "expected array of i32, found array of f32");
    CHECK_THROWS(file->value("x"), ModelFileError, "metadata key \"x\": expected a value, found no such key");
}

TEST_CASE("gguf: values outside the asked range and floats that are not finite are refused") {
    GgufImage image;
    image.scalar<uint32_t>("n", U32, 7).scalar<float>("nan", F32, std::numeric_limits<float>::quiet_NaN());
    image.scalar<float>("inf", F32, std::numeric_limits<float>::infinity());
    const Parsed file = parse(image);
    CHECK(file->u32("n", 7, 7) == 7);
    CHECK_THROWS(file->u32("n", 8, 9), ModelFileError,
                 "metadata key \"n\": expected a u32 from 8 to 9, found 7");
    CHECK_THROWS(file->u32("n", 0, 6), ModelFileError, "expected a u32 from 0 to 6, found 7");
    CHECK_THROWS(file->f32("nan"), ModelFileError, "expected a finite f32, found NaN");
    CHECK_THROWS(file->f32("inf"), ModelFileError, "expected a finite f32, found an infinity");
}

// ---- header ----

TEST_CASE("gguf: an unknown, old or big-endian version is named") {
    GgufImage image;
    for (const uint32_t version : {0u, 4u, 0xFFFFu, 0xFFFFFFFFu}) {
        image.version = version;
        REFUSED(image,
                "header, byte 4: expected GGUF version 2 or 3, found version " + std::to_string(version));
    }
    image.version = 1;
    REFUSED(image, "found version 1. Convert the original model again");
    image.version = 3u << 24;
    REFUSED(image, "expected a little-endian GGUF file, found a big-endian one");
}

TEST_CASE("gguf: counts that the file cannot hold are refused before memory is taken") {
    GgufImage image;
    image.n_entries = 1;
    REFUSED(image, "header, byte 16: expected at most 0 metadata keys (8 bytes follow), found 1");
    image.n_entries = std::numeric_limits<int64_t>::max();
    REFUSED(image, "found 9223372036854775807");
    image = GgufImage();
    image.n_tensors = 2;
    REFUSED(image.header().zeros(33), "header, byte 8: expected at most 1 tensor (");
    image.n_tensors = std::numeric_limits<int64_t>::max();
    REFUSED(image, "header, byte 8: expected at most");
    image.n_tensors = 0;
    image.n_entries = GgufFile::kMaxKeys + 1;
    REFUSED(image.header().zeros(14 << 17), "expected at most 65536 metadata keys");
    image.n_entries = 0;
    image.n_tensors = GgufFile::kMaxTensors + 1;
    REFUSED(image.header().zeros(33 << 17), "expected at most 65536 tensors");
}

TEST_CASE("gguf: what is no GGUF is recognised and named") {
    REFUSED(std::string(),
            "\"test.gguf\": header, byte 0: expected a GGUF model (magic \"GGUF\"), found an empty file");
    REFUSED("lmgg" + std::string(40, '\1'), "found a legacy ggml file (magic \"ggml\"");
    REFUSED("fmgg" + std::string(40, '\1'), "found a legacy ggml file (magic \"ggmf\")");
    REFUSED("tjgg" + std::string(40, '\1'), "found a legacy ggml file (magic \"ggjt\")");
    REFUSED("FUGG" + std::string(40, '\1'), "found a byte-swapped GGUF file");
    REFUSED(Bytes().put<uint64_t>(64).raw("{\"__metadata__\":{}").zeros(80), "found a safetensors file");
    REFUSED("PK\x03\x04" + std::string(40, '\1'), "found a zip archive (a PyTorch .pt");
    REFUSED("\x80\x02}q" + std::string(40, '\1'), "found a Python pickle");
    REFUSED(std::string("\x06\0\0\0\x0c\0WhisperSpec\0\x03\0\0\0", 22), "found a CTranslate2 model.bin");
    REFUSED("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "found a Git LFS pointer");
    REFUSED("\xEF\xBB\xBF \n<!DOCTYPE html><html>", "found an HTML page");
    REFUSED("<HTML>", "found an HTML page");
    REFUSED("<?xml version='1.0'?><Error/>", "found an XML text");
    REFUSED("{\"d_model\": 384}", "found a JSON text");
    REFUSED("\x1f\x8b\x08", "found a gzip archive. Unpack it first.");
    REFUSED("RIFF\1\2\3\4WAVEfmt ", "found a RIFF file (WAV audio)");
    REFUSED(std::string(5000, '\0'), "found zero bytes (an interrupted download");
    REFUSED(std::string("GGUF"),
            "header, byte 4: expected 4 bytes for the version, found the end of the file (0 bytes");
    REFUSED(std::string("GGU"), "found a file that starts with \"GGU\"");
    REFUSED(std::string("GG\nX\xFF \"!trailing"), "found a file that starts with \"GG\\x0aX\\xff \\x22!\"");
    const std::string tar = std::string(257, 'a') + "ustar" + std::string(250, '\0');
    REFUSED(tar, "found a tar archive");
}

// ---- metadata ----

TEST_CASE("gguf: keys are non-empty, short, clean UTF-8 and unique") {
    const auto with_key = [](const std::string& key) { return GgufImage().scalar<uint32_t>(key, U32, 1); };
    REFUSED(with_key("").header().zeros(8),
            "metadata key number 0, byte 24: expected the key of 1 to 256 bytes");
    CHECK(parse(with_key(std::string(256, 'k')))->u32(std::string(256, 'k')) == 1);
    REFUSED(with_key(std::string(257, 'k')), "expected the key of 1 to 256 bytes, found 257 bytes");
    REFUSED(with_key("a\nb"), "expected the key without control characters, found \"a\\x0ab\"");
    REFUSED(with_key(std::string("a\0b", 3)), "without control characters");
    for (const char* bad :
         {"\xFF", "\x80", "\xC0\x80", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
          "\xF8\x88\x80\x80\x80", "\xE2\x82", "abcdefgh\xC3(abcdefgh"}) {
        REFUSED(with_key(bad), "metadata key number 0, byte 32: expected UTF-8 in the key, found");
    }
    for (const char* good :
         {"\xC2\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
        CHECK(parse(with_key(good))->has(good));
    }
    REFUSED(with_key("twice").scalar<uint32_t>("other", U32, 1).scalar<uint32_t>("twice", U32, 2),
            "metadata key number 2, byte 66: expected the key to be unique, found \"twice\" a second time "
            "(first as "
            "number 0)");
}

TEST_CASE("gguf: value types, booleans and strings are checked") {
    const auto head = [](uint32_t type) { return Bytes().str("k").put(type); };
    REFUSED(one_key(head(13).put<uint64_t>(0)),
            "metadata key \"k\", byte 33: expected a value type from 0 to 12, found 13");
    REFUSED(one_key(head(0xFFFFFFFF).put<uint64_t>(0)), "found 4294967295");
    REFUSED(one_key(head(BOOL).put<uint8_t>(2)),
            "metadata key \"k\", byte 37: expected a bool, 0 or 1, found 2");
    REFUSED(one_key(head(STRING).put<uint64_t>(1000).raw("abc")),
            "byte 45: expected 1000 bytes for the string, found the end");
    REFUSED(one_key(head(STRING).put<uint64_t>(~uint64_t{0}).raw("abc")),
            "expected 18446744073709551615 bytes for the string");
    REFUSED(one_key(head(STRING).str("a\xFFz")),
            "metadata key \"k\", byte 45: expected UTF-8 in the string, found \"a\\xffz\"");
    REFUSED(one_key(head(F64).put<uint8_t>(1)).header(),
            "byte 37: expected 8 bytes for the value, found the end of the file (1 byte left)");
}

TEST_CASE("gguf: arrays are flat, typed and fit the file") {
    const auto array = [](uint32_t element, uint64_t count) {
        return GgufImage::array_head("k", element, count);
    };
    REFUSED(one_key(array(ARRAY, 1).zeros(64)),
            "metadata key \"k\", byte 37: expected an array of plain values, found an array of arrays");
    REFUSED(one_key(array(13, 1).zeros(64)),
            "metadata key \"k\", byte 37: expected an element type from 0 to 12, found 13");
    REFUSED(one_key(array(U64, 3).zeros(23)).header(),
            "byte 41: expected an array of at most 2 elements (23 bytes follow), found 3");
    REFUSED(one_key(array(U64, uint64_t{1} << 61).zeros(64)), "expected an array of at most 9 elements");
    REFUSED(one_key(array(STRING, ~uint64_t{0}).zeros(64)), "expected an array of at most 9 elements");
    REFUSED(one_key(array(STRING, 2).str("ab").put<uint64_t>(99)),
            "byte 67: expected 99 bytes for a string of the array");
    REFUSED(one_key(array(STRING, 1).str("\xC3")), "byte 57: expected UTF-8 in a string of the array");
    REFUSED(one_key(array(BOOL, 3).put<uint8_t>(0).put<uint8_t>(1).put<uint8_t>(7)),
            "byte 51: expected a bool, 0 or 1, found 7");
}

TEST_CASE("gguf: the total of array elements and the size of the header are bounded") {
    GgufImage image;
    const std::vector<uint8_t> most(GgufFile::kMaxArrayElements, 1);
    image.array<uint8_t>("a", U8, most);
    CHECK(std::get<std::vector<uint64_t>>(parse(image)->value("a")).size() == most.size());
    image.array<uint8_t>("b", U8, {1});
    REFUSED(image, "metadata key \"b\", byte 1048642: expected an array of at most 0 elements");
    const Bytes big = Bytes().str("k").put<uint32_t>(STRING).put<uint64_t>(GgufFile::kMaxMetadataBytes);
    REFUSED(one_key(big).header().zeros(GgufFile::kMaxMetadataBytes),
            "expected a header of at most 67108864 bytes");
}

TEST_CASE("gguf: the alignment is a u32 power of two from 32 to 4096") {
    for (const uint32_t alignment : {0u, 1u, 16u, 33u, 48u, 8192u, 0x80000000u, 0xFFFFFFFFu}) {
        GgufImage image = GgufImage().scalar<uint32_t>("general.alignment", U32, alignment);
        REFUSED(
            image,
            "metadata key \"general.alignment\", byte 53: expected a power of two from 32 to 4096, found " +
                std::to_string(alignment));
    }
    REFUSED(GgufImage().scalar<uint64_t>("general.alignment", U64, 32),
            "expected a u32, found a value of type u64");
    REFUSED(GgufImage().string("general.alignment", "32"), "expected a u32, found a value of type string");
    REFUSED(GgufImage().array<uint32_t>("general.alignment", U32, {32}),
            "expected a u32, found a value of type array");
    CHECK(parse(GgufImage().scalar<uint32_t>("general.alignment", U32, 32))->alignment() == 32);
    GgufImage image = one_tensor({4}, GGML_TYPE_F32, 4096, 4096 + 16);
    image.scalar<uint32_t>("general.alignment", U32, 4096);
    image.alignment = 4096;
    CHECK(parse(image)->find("w")->offset == 8192);
}

// ---- tensors ----

TEST_CASE("gguf: tensor names are non-empty, short, clean and unique") {
    const auto named = [](const std::string& name) {
        GgufImage image;
        image.tensor(name, {4, 4}, GGML_TYPE_F32, 0);
        image.data_bytes = 256;
        return image;
    };
    REFUSED(named(""), "tensor number 0, byte 24: expected the name of 1 to 63 bytes, found 0 bytes");
    CHECK(parse(named(std::string(63, 'n')))->tensors()[0].name.size() == 63);
    REFUSED(named(std::string(64, 'n')), "expected the name of 1 to 63 bytes, found 64 bytes");
    REFUSED(named("a\x7F"), "expected the name without control characters");
    REFUSED(named("\xFE"), "tensor number 0, byte 32: expected UTF-8 in the name");
    REFUSED(named("w").tensor("w", {4}, GGML_TYPE_F32, 64),
            "tensor number 1, byte 65: expected the name to be unique, found \"w\" a second time (first as "
            "number 0)");
}

TEST_CASE("gguf: shapes have 1 to 4 dimensions of at least 1 that do not overflow") {
    REFUSED(one_tensor({}, GGML_TYPE_F32), "tensor \"w\", byte 33: expected 1 to 4 dimensions, found 0");
    REFUSED(one_tensor({1, 1, 1, 1, 1}, GGML_TYPE_F32), "expected 1 to 4 dimensions, found 5");
    GgufImage image;
    image.tensors = {Bytes().str("w").put<uint32_t>(0xFFFFFFFF).zeros(400)};
    REFUSED(image, "expected 1 to 4 dimensions, found 4294967295");
    REFUSED(one_tensor({0}, GGML_TYPE_F32),
            "tensor \"w\", byte 37: expected dimension 0 of at least 1, found 0");
    REFUSED(one_tensor({4, 0}, GGML_TYPE_F32), "byte 45: expected dimension 1 of at least 1, found 0");
    REFUSED(one_tensor({~uint64_t{0}}, GGML_TYPE_F32),
            "expected a shape with fewer than 2^63 elements, found dimension 0 = 18446744073709551615");
    REFUSED(one_tensor({uint64_t{1} << 63}, GGML_TYPE_F32), "fewer than 2^63 elements");
    REFUSED(one_tensor({uint64_t{1} << 32, uint64_t{1} << 31}, GGML_TYPE_F32),
            "fewer than 2^63 elements, found dimension 1");
    REFUSED(one_tensor({uint64_t{1} << 16, uint64_t{1} << 16, uint64_t{1} << 16, uint64_t{1} << 16},
                       GGML_TYPE_F32),
            "fewer than 2^63 elements, found dimension 3");
    REFUSED(one_tensor({(uint64_t{1} << 63) - 1}, GGML_TYPE_F32), "9223372036854775807 elements of type f32");
    // The byte count wraps to 0 in 64 bits: 2^62 elements of 4 bytes.
    REFUSED(one_tensor({uint64_t{1} << 31, uint64_t{1} << 31}, GGML_TYPE_F32),
            "expected a tensor that fits the file");
    REFUSED(one_tensor({uint64_t{1} << 61, 2}, GGML_TYPE_F32), "expected a tensor that fits the file");
    REFUSED(one_tensor({uint64_t{1} << 62}, GGML_TYPE_Q8_0), "elements of type q8_0");
}

TEST_CASE("gguf: tensor types are known, allowed, and rows are whole blocks") {
    REFUSED(one_tensor({256}, 43),
            "tensor \"w\", byte 45: expected one of F32 F16 BF16 Q8_0 Q6_K Q5_K Q4_K Q4_0, found the unknown "
            "type 43");
    REFUSED(one_tensor({256}, 0xFFFFFFFF), "found the unknown type 4294967295");
    REFUSED(one_tensor({256}, GGML_TYPE_F64), "found type 28 (f64)");
    REFUSED(one_tensor({256}, GGML_TYPE_IQ2_XXS), "found type 16 (iq2_xxs)");
    const std::set<uint32_t> allowed = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                        GGML_TYPE_Q6_K, GGML_TYPE_Q5_K, GGML_TYPE_Q4_K, GGML_TYPE_Q4_0};
    for (uint32_t type = 0; type < 64; ++type)
        CHECK(opens(one_tensor({256}, type).bytes()) == (allowed.count(type) != 0));
    REFUSED(one_tensor({80}, GGML_TYPE_Q8_0),
            "tensor \"w\", byte 45: expected rows of a multiple of 32 elements for type q8_0, found 80");
    REFUSED(one_tensor({16, 2}, GGML_TYPE_Q4_0),
            "expected rows of a multiple of 32 elements for type q4_0, found 16");
    REFUSED(one_tensor({384, 2}, GGML_TYPE_Q6_K),
            "expected rows of a multiple of 256 elements for type q6_K, found 384");
}

TEST_CASE("gguf: data is aligned, inside the file and nobody else's") {
    REFUSED(one_tensor({4}, GGML_TYPE_F32, 16),
            "tensor \"w\", byte 49: expected an offset that is a multiple of the alignment, 32, found 16");
    CHECK(parse(one_tensor({4}, GGML_TYPE_F32, 64, 80))->find("w")->offset == 128);
    REFUSED(one_tensor({4}, GGML_TYPE_F32, 64, 79),
            "tensor \"w\", byte 49: expected 16 bytes of data at offset 64, found 79 bytes of tensor data in "
            "the file (143 bytes)");
    REFUSED(one_tensor({4}, GGML_TYPE_F32, 96, 80), "expected 16 bytes of data at offset 96");
    REFUSED(one_tensor({4}, GGML_TYPE_F32, ~uint64_t{31}, 80), "at offset 18446744073709551584");
    REFUSED(one_tensor({4}, GGML_TYPE_F32).header(), "found 0 bytes of tensor data in the file (57 bytes)");
    GgufImage image = one_tensor({9}, GGML_TYPE_F32, 64).tensor("v", {9}, GGML_TYPE_F32, 32);
    REFUSED(image, "tensor \"w\", byte 49: expected data of its own, found that it overlaps tensor \"v\"");
    image = one_tensor({8}, GGML_TYPE_F32, 64).tensor("v", {8}, GGML_TYPE_F32, 32);
    CHECK(parse(image)->tensors().size() == 2);
    image.tensor("u", {8}, GGML_TYPE_F32, 64);
    REFUSED(image, "overlaps tensor");
}

// ---- every byte ----

TEST_CASE("gguf: a file cut at any byte is refused") {
    const std::vector<uint8_t> good = good_image().bytes();
    CHECK(opens(good));
    for (size_t size = 0; size < good.size(); ++size) {
        CHECK(!opens(std::vector<uint8_t>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))));
    }
}

TEST_CASE("gguf: any byte of the header at any value opens or is refused, in time") {
    const GgufImage image = good_image();
    const size_t header = image.header().size();
    std::vector<uint8_t> bytes = image.bytes();
    const std::clock_t start = std::clock();  // processor time: the machine may be busy
    size_t refused = 0;
    for (size_t at = 0; at < header; ++at) {
        const uint8_t original = bytes[at];
        for (unsigned value = 0; value < 256; ++value) {
            bytes[at] = static_cast<uint8_t>(value);
            refused += opens(bytes) ? 0 : 1;
        }
        bytes[at] = original;
    }
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    CHECK(refused > header * 64);  // lengths, counts, types and offsets are most of the header
    CHECK(seconds < 30);           // 1.5 s in a release build, 6 s with sanitizers
}

TEST_CASE("gguf: any two neighbouring fields of extreme values open or are refused") {
    const GgufImage image = good_image();
    const size_t header = image.header().size();
    const std::vector<uint8_t> good = image.bytes();
    const uint64_t extremes[] = {0,
                                 1,
                                 0x7FFFFFFF,
                                 0x80000000,
                                 0xFFFFFFFF,
                                 uint64_t{1} << 32,
                                 (uint64_t{1} << 63) - 1,
                                 uint64_t{1} << 63,
                                 ~uint64_t{0},
                                 ~uint64_t{7},
                                 good.size(),
                                 good.size() - header};
    size_t opened = 0;
    for (size_t at = 4; at + 8 <= header; ++at) {
        for (const uint64_t value : extremes) {
            std::vector<uint8_t> bytes = good;
            std::memcpy(bytes.data() + at, &value, sizeof value);
            opened += opens(bytes) ? 1 : 0;
        }
    }
    CHECK(opened > 0);
}

}  // namespace rustasr::test
