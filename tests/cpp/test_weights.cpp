#include <numeric>

#include "check.h"
#include "core/error.h"
#include "core/weights.h"
#include "gguf_writer.h"

namespace {

using namespace rustasr;

/// "a.weight" [32, 2] F32 counting up, "b.bias" [4] F32.
std::shared_ptr<const GgufFile> two_tensors() {
    test::GgufImage image;
    image.string("general.architecture", "test");
    image.tensor("a.weight", {32, 2}, 0, 0).tensor("b.bias", {4}, 0, 256);
    image.data_bytes = 256 + 32;
    std::vector<uint8_t> bytes = image.bytes();
    std::vector<float> values(64);
    std::iota(values.begin(), values.end(), 0.0f);
    std::memcpy(bytes.data() + bytes.size() - image.data_bytes, values.data(), 256);
    return GgufFile::parse(MappedFile::of_bytes(std::move(bytes), "two.gguf"));
}

}  // namespace

TEST_CASE("weights: what the modules ask for is loaded and readable") {
    WeightStore store(two_tensors(), find_device("cpu"));
    const ggml_tensor* a = (store.root() / "a").get("weight", {32, 2});
    (store.root() / "b").get_f32("bias", {4});
    store.load(1);
    CHECK(static_cast<const float*>(a->data)[33] == 33.0f);
    CHECK(store.nbytes() == 256 + 16);
}

TEST_CASE("weights: a wrong shape names the tensor and both shapes") {
    WeightStore store(two_tensors(), find_device("cpu"));
    CHECK_THROWS((store.root() / "a").get("weight", {32, 3}), ModelFileError, "a.weight");
    CHECK_THROWS((store.root() / "a").get("weight", {32, 3}), ModelFileError,
                 "expected shape [32, 3], found [32, 2]");
}

TEST_CASE("weights: a missing tensor is named") {
    WeightStore store(two_tensors(), find_device("cpu"));
    CHECK_THROWS((store.root() / "a").get("bias", {32}), ModelFileError, "a.bias");
}

TEST_CASE("weights: a tensor that no module claimed is named") {
    WeightStore store(two_tensors(), find_device("cpu"));
    (store.root() / "a").get("weight", {32, 2});
    CHECK_THROWS(store.load(1), ModelFileError, "b.bias");
}
