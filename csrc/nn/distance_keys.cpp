#include "nn/distance_keys.h"

namespace rustasr {
namespace {

constexpr int64_t kLeast = 128;
// Windows above this compute the keys anew: 24 blocks of Parakeet keep 100 MB (F32) for 512 frames, 41 s.
constexpr int64_t kMostKept = 512;

}  // namespace

DistanceKeys::DistanceKeys(Backend& backend, const ConformerEncoder& encoder, const ConformerConfig& config,
                           ggml_type type)
    : backend_(backend), encoder_(encoder), d_(config.d_model), n_head_(config.n_head), type_(type) {}

std::vector<ggml_tensor*> DistanceKeys::of(Graph& graph, int64_t n_frames) {
    if (n_frames > capacity_) reserve(n_frames);
    ggml_context* ctx = graph.ctx();
    const int64_t n_rows = 2 * n_frames - 1, d_head = d_ / n_head_;
    const auto middle = [&](ggml_tensor* all) {
        return ggml_view_2d(ctx, all, d_, n_rows, all->nb[1],
                            static_cast<size_t>(capacity_ - n_frames) * all->nb[1]);
    };
    std::vector<ggml_tensor*> distances;
    for (size_t i = 0; i < encoder_.blocks().size(); ++i) {
        ggml_tensor* keys = keys_.empty()
                                ? encoder_.blocks()[i].attention().project_distances(graph, middle(sines_))
                                : middle(keys_[i]);
        distances.push_back(ggml_view_3d(ctx, keys, d_head, n_rows, n_head_, keys->nb[1],
                                         ggml_row_size(keys->type, d_head), 0));
    }
    return distances;
}

void DistanceKeys::reserve(int64_t n_frames) {
    int64_t capacity = kLeast;
    while (capacity < n_frames) capacity *= 2;
    const bool keep = capacity <= kMostKept;
    const size_t n_keys = keep ? encoder_.blocks().size() : 0;

    keys_.clear();
    buffer_.reset();
    context_.reset(ggml_init({(n_keys + 1) * ggml_tensor_overhead(), nullptr, true}));
    sines_ = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, d_, 2 * capacity - 1);
    for (size_t i = 0; i < n_keys; ++i)
        keys_.push_back(ggml_new_tensor_2d(context_.get(), type_, d_, 2 * capacity - 1));
    buffer_ = backend_.allocate(context_.get(), "the relative positions");
    capacity_ = capacity;
    write(sines_, distance_table(capacity, d_).data());
    if (keep) fill_keys();
}

void DistanceKeys::fill_keys() {
    Graph graph(backend_, 8 * keys_.size() + 8, kernels::Precision::F32);
    for (size_t i = 0; i < keys_.size(); ++i) {
        ggml_tensor* projected = encoder_.blocks()[i].attention().project_distances(graph, sines_);
        graph.effect(ggml_cpy(graph.ctx(), projected, keys_[i]));
    }
    graph.finish();
    graph.run();
}

}  // namespace rustasr
