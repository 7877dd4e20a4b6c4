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
    KvCache cache(backend, 1, 32, 1, 100, 2, GGML_TYPE_F16);
    cache.reset(2);
    cache.read(0, {2, 3}, 3);
    CHECK(cache.cells() == (std::vector<int64_t>{0, 1, 2, 0, 1, 2}));
    CHECK(seen(cache, 0, 4) == "1000");
    CHECK(seen(cache, 1, 4) == "1100");
    CHECK(seen(cache, 5, 4) == "1110");

    // Two beams fan out from the prompts, then both of window 0 continue its second beam.
    cache.branch({{{0, 7}, {0, 8}}, {{0, 7}, {0, 8}}}, 2);
    CHECK(cache.cells() == (std::vector<int64_t>{2, 3, 3, 4}));
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
    KvCache cache(backend, 1, 32, 1, 100, 2, GGML_TYPE_F16);
    cache.use(2);
    cache.read(0, {3, 1}, 3);
    cache.read(0, {1, 2}, 2);
    CHECK(cache.cells() == (std::vector<int64_t>{3, 4, 1, 2}));
    CHECK(seen(cache, 0, 5) == "11110");
    CHECK(seen(cache, 2, 4) == "1100");
    CHECK(seen(cache, 3, 4) == "1110");
    // With one hypothesis to a window the number of cells before it says what the mask says.
    CHECK(cache.offsets() == (std::vector<int32_t>{3, 1}));
    cache.branch({{{0, 7}}, {{0, 7}}}, 1);
    CHECK(cache.cells() == (std::vector<int64_t>{4, 3}));
    CHECK(cache.offsets() == (std::vector<int32_t>{4, 3}));
    // Window 1 forgets all but one token and reads another prompt; window 0 keeps what it has.
    cache.rewind(1, 1);
    cache.read(1, {2}, 2);
    CHECK(cache.cells() == (std::vector<int64_t>{1, 2}));
    CHECK(seen(cache, 1, 4) == "1110");
    cache.branch({{{0, 7}}, {{0, 7}}}, 1);
    CHECK(cache.offsets() == (std::vector<int32_t>{5, 3}));
}

TEST_CASE("kv cache: a larger one takes over what a smaller one holds") {
    const Backend backend(find_device("cpu"), 1);
    KvCache small(backend, 2, 8, 3, 64, 2, GGML_TYPE_F32);
    small.use(2);
    small.read(0, {3, 2}, 3);
    CHECK(small.has_room(61));
    CHECK(!small.has_room(62));
    const size_t cell = 8 * sizeof(float);
    std::vector<float> values(8, 1.5f);
    ggml_backend_tensor_set(small.values(1), values.data(), cell * (64 * (3 + 2) + 1),
                            cell);  // window 1, head 2, cell 1
    KvCache large(backend, small, 100);
    CHECK(large.n_cells() == 128);
    CHECK(large.has_room(100));
    std::vector<float> copied(8);
    ggml_backend_tensor_get(large.values(1), copied.data(), cell * (128 * (3 + 2) + 1), cell);
    CHECK(copied == values);
    large.branch({{{0, 7}}, {{0, 7}}}, 1);
    CHECK(large.cells() == (std::vector<int64_t>{3, 2}));
    CHECK(large.offsets() == (std::vector<int32_t>{3, 2}));
    // What no token has been written to is zeros, not whatever lay in the memory.
    ggml_backend_tensor_get(large.keys(0), copied.data(), cell * 60, cell);
    CHECK(copied == std::vector<float>(8));
}

TEST_CASE("kv cache: what a graph stores lies by window and head, and its first cells come back") {
    Backend backend(find_device("cpu"), 1);
    constexpr int64_t kD = 2, kHeads = 3, kTokens = 2, kWindows = 2;
    KvCache cache(backend, 1, kD, kHeads, 64, 3, GGML_TYPE_F32);
    cache.use(3);
    cache.read(0, {1, 2, 3}, 3);
    cache.read(1, {2, 2}, 2);  // windows 1 and 2, from their cells 2 and 3 on

    Graph graph(backend, 16, kernels::Precision::F32);
    // As a projection gives them: [D, heads, tokens · windows].
    ggml_tensor* x = graph.input(GGML_TYPE_F32, {kD, kHeads, kTokens * kWindows});
    ggml_tensor* rows = ggml_view_4d(graph.ctx(), x, kD, kTokens, kHeads, kWindows, x->nb[2], x->nb[1],
                                     x->nb[2] * kTokens, 0);
    ggml_tensor* cells = graph.input(GGML_TYPE_I64, {kTokens, 1, kWindows});
    ggml_tensor* seen = KvCache::store(graph, cache.keys(0), rows, cells, 1, 6);
    CHECK(seen->ne[0] == kD && seen->ne[1] == 6 && seen->ne[2] == kHeads && seen->ne[3] == kWindows);
    ggml_tensor* copy = ggml_cont(graph.ctx(), seen);
    graph.output(copy);
    graph.finish();
    std::vector<float> values(static_cast<size_t>(ggml_nelements(x)));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + 1);
    write(x, values.data());
    write(cells, cache.cells().data());
    graph.run();

    std::vector<float> found(static_cast<size_t>(ggml_nelements(copy))), expected(found.size());
    read(copy, found.data());
    for (int64_t w = 0; w < kWindows; ++w) {
        for (int64_t t = 0; t < kTokens; ++t) {
            for (int64_t h = 0; h < kHeads; ++h) {
                for (int64_t d = 0; d < kD; ++d) {
                    const int64_t cell = 2 + w + t;
                    expected[static_cast<size_t>(((w * kHeads + h) * 6 + cell) * kD + d)] =
                        values[static_cast<size_t>(((w * kTokens + t) * kHeads + h) * kD + d)];
                }
            }
        }
    }
    CHECK(found == expected);
}
