#include "check.h"
#include "nn/kv_cache.h"

namespace {

using namespace rustasr;

/// Which cells row `row` sees, as text: "1101".
std::string seen(const KvCache& cache, size_t row, size_t n) {
    const std::vector<ggml_fp16_t> mask = cache.mask();
    std::string text;
    for (size_t cell = 0; cell < n; ++cell)
        text += mask[row * static_cast<size_t>(cache.n_kv()) + cell] == 0 ? '1' : '0';
    return text;
}

}  // namespace

TEST_CASE("kv cache: a prompt is read causally, and hypotheses see their own path only") {
    const Backend backend(find_device("cpu"), 1);
    KvCache cache(backend, 1, 32, 100, 2, GGML_TYPE_F16);
    cache.reset(2);
    cache.read(0, {2, 3}, 3);
    CHECK(cache.cells() == (std::vector<int64_t>{0, 1, 2, 128, 129, 130}));
    CHECK(seen(cache, 0, 4) == "1000");
    CHECK(seen(cache, 1, 4) == "1100");
    CHECK(seen(cache, 5, 4) == "1110");

    // Two beams fan out from the prompts, then both of window 0 continue its second beam.
    cache.branch({{{0, 7}, {0, 8}}, {{0, 7}, {0, 8}}}, 2);
    CHECK(cache.cells() == (std::vector<int64_t>{2, 3, 131, 132}));
    CHECK(seen(cache, 0, 5) == "11100");
    CHECK(seen(cache, 1, 5) == "11010");
    CHECK(seen(cache, 3, 5) == "11101");
    cache.branch({{{1, 7}, {1, 8}}, {}}, 2);
    CHECK(seen(cache, 0, 6) == "110110");
    CHECK(seen(cache, 1, 6) == "110101");
    CHECK(seen(cache, 2, 6) == "000000");  // the second window is done
}

TEST_CASE("kv cache: a prompt may come in pieces, be rewound and read on") {
    const Backend backend(find_device("cpu"), 1);
    KvCache cache(backend, 1, 32, 100, 2, GGML_TYPE_F16);
    cache.use(2);
    cache.read(0, {3, 1}, 3);
    cache.read(0, {1, 2}, 2);
    CHECK(cache.cells() == (std::vector<int64_t>{3, 4, 129, 130}));
    CHECK(seen(cache, 0, 5) == "11110");
    CHECK(seen(cache, 2, 4) == "1100");
    CHECK(seen(cache, 3, 4) == "1110");
    // With one hypothesis to a window the number of cells before it says what the mask says.
    CHECK(cache.offsets() == (std::vector<int32_t>{3, 1}));
    cache.branch({{{0, 7}}, {{0, 7}}}, 1);
    CHECK(cache.cells() == (std::vector<int64_t>{4, 131}));
    CHECK(cache.offsets() == (std::vector<int32_t>{4, 3}));
    // Window 1 forgets all but one token and reads another prompt; window 0 keeps what it has.
    cache.rewind(1, 1);
    cache.read(1, {2}, 2);
    CHECK(cache.cells() == (std::vector<int64_t>{129, 130}));
    CHECK(seen(cache, 1, 4) == "1110");
    cache.branch({{{0, 7}}, {{0, 7}}}, 1);
    CHECK(cache.offsets() == (std::vector<int32_t>{5, 3}));
}

TEST_CASE("kv cache: a larger one takes over what a smaller one holds") {
    const Backend backend(find_device("cpu"), 1);
    KvCache small(backend, 2, 8, 64, 2, GGML_TYPE_F32);
    small.use(2);
    small.read(0, {3, 2}, 3);
    CHECK(small.has_room(61));
    CHECK(!small.has_room(62));
    const size_t cell = 8 * sizeof(float);
    std::vector<float> values(8, 1.5f);
    ggml_backend_tensor_set(small.values(1), values.data(), cell * 65, cell);  // window 1, cell 1
    KvCache large(backend, small, 100);
    CHECK(large.n_cells() == 128);
    CHECK(large.has_room(100));
    std::vector<float> copied(8);
    ggml_backend_tensor_get(large.values(1), copied.data(), cell * 129, cell);
    CHECK(copied == values);
    large.branch({{{0, 7}}, {{0, 7}}}, 1);
    CHECK(large.cells() == (std::vector<int64_t>{3, 130}));
    CHECK(large.offsets() == (std::vector<int32_t>{3, 2}));
    // What no token has been written to is zeros, not whatever lay in the memory.
    ggml_backend_tensor_get(large.keys(0), copied.data(), cell * 60, cell);
    CHECK(copied == std::vector<float>(8));
}
