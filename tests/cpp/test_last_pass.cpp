// One graph is kept, and the next one works in its memory.

#include <numeric>

#include "check.h"
#include "core/last_pass.h"

namespace {

using namespace rustasr;

struct Doubling {
    Doubling(Backend& backend, int64_t n, size_t max_nodes, GraphMemory memory)
        : graph(backend, max_nodes, kernels::Precision::F32, {}, std::move(memory)),
          x(graph.input(GGML_TYPE_F32, {n})),
          y(ggml_add(graph.ctx(), x, x)) {
        graph.output(y);
        graph.finish();
    }
    Graph graph;
    ggml_tensor *x, *y;  // [n]
};

struct Doublings {
    Backend backend{find_device("cpu"), 1};
    LastPass<int64_t, Doubling> last;
    std::vector<size_t> given;        // max_nodes of the memory that each new graph was given; 0: none
    std::vector<size_t> given_bytes;  // what it had grown to

    void check(int64_t n, size_t max_nodes) {
        Doubling& pass = last.of(n, [&](GraphMemory memory) {
            CHECK((memory.scheduler != nullptr) == (memory.max_nodes > 0));
            given.push_back(memory.max_nodes);
            given_bytes.push_back(memory.scheduler ? ggml_backend_sched_get_buffer_size(
                                                         memory.scheduler.get(), backend.all().front())
                                                   : 0);
            return std::make_unique<Doubling>(backend, n, max_nodes, std::move(memory));
        });
        std::vector<float> x(static_cast<size_t>(n)), y(x.size());
        std::iota(x.begin(), x.end(), static_cast<float>(given.size()));
        write(pass.x, x.data());
        pass.graph.run();
        read(pass.y, y.data());
        for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == 2 * x[i]);
    }
};

}  // namespace

TEST_CASE("last pass: a shape is built once, another takes its memory, whatever the sizes") {
    Doublings doublings;
    for (int64_t n : {7, 7, 4000, 4000, 3, 7}) doublings.check(n, 64);
    CHECK(doublings.given == (std::vector<size_t>{0, 64, 64, 64}));
    CHECK(doublings.given_bytes[1] < 4000 * sizeof(float));
    CHECK(doublings.given_bytes[3] >= 4000 * sizeof(float));  // the three worked in that of the 4000
}

TEST_CASE("last pass: a graph of more nodes takes memory anew, which then serves those of fewer") {
    Doublings doublings;
    doublings.check(7, 64);
    doublings.check(8, 256);
    doublings.check(9, 64);
    doublings.check(10, 256);
    CHECK(doublings.given == (std::vector<size_t>{0, 64, 256, 256}));
    doublings.last.clear();
    doublings.check(10, 64);
    CHECK(doublings.given.back() == 0);
}
