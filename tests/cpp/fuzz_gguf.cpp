// libFuzzer target for the GGUF reader (option RUSTASR_FUZZ, clang only): any bytes open or are refused with
// a ModelFileError; an opened file can be read through to its last byte.
//
//     cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DRUSTASR_FUZZ=ON
//     build-fuzz/tests/cpp/fuzz_gguf -max_total_time=300 -malloc_limit_mb=64 -dict=tests/cpp/fuzz_gguf.dict
//     corpus/
//
// With RUSTASR_FUZZ_SEEDS=<folder> in the environment it first writes its seed files there.

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/gguf.h"
#include "gguf_writer.h"

namespace {

using rustasr::GgufFile;
using rustasr::MappedFile;
using namespace rustasr::test;

void write_seed(const std::string& path, const std::vector<uint8_t>& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void write_seeds(const std::string& folder) {
    GgufImage all;
    all.scalar<uint8_t>("u8", U8, 1).scalar<int64_t>("i64", I64, -1).scalar<double>("f64", F64, 1.0);
    all.scalar<uint32_t>("n", U32, 7).scalar<float>("x", F32, 0.5f).scalar<uint8_t>("b", BOOL, 1);
    all.string("s", "text").strings("ss", {"a", "", "\xC3\xA9"}).array<int32_t>("is", I32, {1, 2, 3});
    all.array<uint8_t>("bs", BOOL, {0, 1}).scalar<uint32_t>("general.alignment", U32, 64);
    all.alignment = 64;
    all.tensor("a", {32, 2}, GGML_TYPE_Q8_0, 0).tensor("b", {3}, GGML_TYPE_F32, 128);
    all.tensor("c", {256}, GGML_TYPE_Q6_K, 192);
    all.data_bytes = 192 + 210;
    write_seed(folder + "/all", all.bytes());
    GgufImage small;
    small.version = 2;
    small.tensor("w", {4, 1, 2, 1}, GGML_TYPE_F16, 0);
    small.data_bytes = 16;
    write_seed(folder + "/small", small.bytes());
    write_seed(folder + "/empty", GgufImage().bytes());
}

volatile uint64_t sink = 0;

void read_everything(const GgufFile& file) {
    uint64_t sum = 0;
    for (const std::string& key : file.keys()) {
        if (!file.has(key)) std::abort();
        sum += file.value(key).index();
    }
    for (const rustasr::TensorInfo& tensor : file.tensors()) {
        const auto* bytes = static_cast<const uint8_t*>(tensor.data);
        if (bytes < file.file().data() || tensor.nbytes == 0) std::abort();
        if (tensor.nbytes != ggml_row_size(tensor.type, tensor.ne[0]) * static_cast<uint64_t>(tensor.ne[1]) *
                                 static_cast<uint64_t>(tensor.ne[2]) * static_cast<uint64_t>(tensor.ne[3])) {
            std::abort();
        }
        for (uint64_t i = 0; i < tensor.nbytes; ++i) sum += bytes[i];
        if (file.find(tensor.name) != &tensor) std::abort();
    }
    sink = sum;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    if (const char* folder = std::getenv("RUSTASR_FUZZ_SEEDS")) write_seeds(folder);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        read_everything(*GgufFile::parse(MappedFile::of_bytes({data, data + size}, "fuzz.gguf")));
    } catch (const rustasr::ModelFileError& error) {
        if (!rustasr::is_utf8(error.what())) std::abort();  // Python must be able to show it
    }
    return 0;
}
