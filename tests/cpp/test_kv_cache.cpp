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
    cache.start({2, 3}, 3);
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
