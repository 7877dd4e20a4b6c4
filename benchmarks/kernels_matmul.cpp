// Speed of our product of Q8_0 and Q4_0 weights beside ggml's own products, in one run, interleaved.
//
//     kernels_matmul [threads = 2] [repetitions = 12]
//
// Best of the repetitions. Columns: ours (quantisation of the activations included), then ggml_mul_mat by
// type of the weights. Rows of one to eight activations are printed as GB/s of weights read (34 bytes per 32
// values, whatever the type). With one thread the clock is the thread's CPU time, which a busy machine
// disturbs less.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "clock.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "kernels/q8_matmul.h"

using rustasr::seconds;
using rustasr::kernels::Activation;

namespace {

struct Shape {
    const char* name;
    int64_t k, n, m;
    Activation activation;
};

// One product with everything that it needs; `copies` of it in the graph, so that a small one is timed well.
class Product {
   public:
    Product(ggml_backend_t backend, const Shape& s, const std::vector<float>& w, const std::vector<float>& x,
            ggml_type type, bool ours)
        : backend_(backend) {
        ggml_init_params params = {};
        params.mem_size = 1 << 20;
        params.no_alloc = true;
        inputs_ = ggml_init(params);
        ctx_ = ggml_init(params);
        using namespace rustasr::kernels;
        const Quants quants = type == GGML_TYPE_Q4_0 ? Quants::Q4_0 : Quants::Q8_0;
        ggml_tensor* weights =
            ours ? ggml_new_tensor_1d(inputs_, GGML_TYPE_I8, q8_packed_nbytes(s.k, s.n, quants))
                 : ggml_new_tensor_2d(inputs_, type, s.k, s.n);
        ggml_tensor* bias = ggml_new_tensor_1d(inputs_, GGML_TYPE_F32, s.n);
        ggml_tensor* acts = ggml_new_tensor_2d(inputs_, GGML_TYPE_F32, s.k, s.m);
        buffer_ = ggml_backend_alloc_ctx_tensors(inputs_, backend);
        std::vector<uint8_t> rows(ggml_row_size(type, s.k) * static_cast<size_t>(s.n));
        ggml_quantize_chunk(type, w.data(), rows.data(), 0, s.n, s.k, nullptr);
        if (ours) {
            q8_pack(rows.data(), s.k, s.n, weights->data, quants);
        } else {
            ggml_backend_tensor_set(weights, rows.data(), 0, rows.size());
        }
        ggml_backend_tensor_set(bias, w.data(), 0, ggml_nbytes(bias));
        ggml_backend_tensor_set(acts, x.data(), 0, ggml_nbytes(acts));
        ggml_tensor* y = nullptr;
        if (ours) {
            const bool plain = s.activation == Activation::None;
            y = q8_linear(ctx_, weights, s.k, s.n, q8_quantize(ctx_, acts), plain ? nullptr : bias,
                          s.activation, nullptr, 1.0f, quants);
        } else {
            y = ggml_mul_mat(ctx_, weights, acts);
            if (s.activation == Activation::Gelu) y = ggml_gelu_erf(ctx_, ggml_add(ctx_, y, bias));
        }
        graph_ = ggml_new_graph(ctx_);
        ggml_build_forward_expand(graph_, y);
        allocator_ = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
        ggml_gallocr_alloc_graph(allocator_, graph_);
    }
    ~Product() {
        ggml_gallocr_free(allocator_);
        ggml_backend_buffer_free(buffer_);
        ggml_free(ctx_);
        ggml_free(inputs_);
    }
    Product(const Product&) = delete;
    Product& operator=(const Product&) = delete;

    void time(int threads, int runs) {
        const double start = seconds(threads);
        for (int i = 0; i < runs; ++i) ggml_backend_graph_compute(backend_, graph_);
        best = std::min(best, (seconds(threads) - start) / runs);
    }
    double best = 1e9;

   private:
    ggml_backend_t backend_;
    ggml_context *inputs_, *ctx_;
    ggml_backend_buffer_t buffer_;
    ggml_cgraph* graph_;
    ggml_gallocr_t allocator_;
};

constexpr ggml_type kOurs[] = {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0};

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2, repetitions = argc > 2 ? std::atoi(argv[2]) : 12;
    const Activation none = Activation::None, gelu = Activation::Gelu;
    const Shape shapes[] = {
        {"tiny out", 384, 384, 1500, none},
        {"tiny fc1", 384, 1536, 1500, none},
        {"tiny fc1 gelu", 384, 1536, 1500, gelu},
        {"tiny fc2", 1536, 384, 1500, none},
        {"base fc1", 512, 2048, 1500, none},
        {"gigaam ff1", 768, 3072, 750, none},
        {"parakeet ff1", 1024, 4096, 375, none},
        {"parakeet ff2", 4096, 1024, 375, none},
        {"turbo out", 1280, 1280, 1500, none},
        {"turbo fc1", 1280, 5120, 1500, none},
        {"turbo fc1 gelu", 1280, 5120, 1500, gelu},
        {"turbo fc2", 5120, 1280, 1500, none},
        {"base fc1, 1 row", 512, 2048, 1, none},
        {"turbo fc1, 1 row", 1280, 5120, 1, none},
        {"turbo fc1, 4 rows", 1280, 5120, 4, none},
        {"turbo fc1, 8 rows", 1280, 5120, 8, none},
        {"qwen up, 1 row", 1024, 6144, 1, none},
        {"qwen up, 4 rows", 1024, 6144, 4, none},
        {"qwen up, 410 rows", 1024, 6144, 410, none},
        {"turbo logits, 1 row", 1280, 51866, 1, none},
        {"turbo logits, 5 rows", 1280, 51866, 5, none},
    };
    const ggml_type types[] = {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q6_K, GGML_TYPE_BF16, GGML_TYPE_F16};
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, threads);
    std::printf("%-21s %5s %6s %5s  %10s %10s", "", "K", "N", "M", "our q8_0", "our q4_0");
    for (ggml_type t : types) std::printf(" %7s", ggml_type_name(t));
    std::printf("   (%s, %d threads)\n", rustasr::kernels::q8_form(), threads);

    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (const Shape& s : shapes) {
        std::vector<float> w(static_cast<size_t>(s.k * s.n)), x(static_cast<size_t>(s.k * s.m));
        for (float& v : w) v = 0.05f * normal(random);
        for (float& v : x) v = normal(random);
        std::vector<Product*> products;
        for (ggml_type t : kOurs) products.push_back(new Product(backend, s, w, x, t, true));
        for (ggml_type t : types) {
            const bool fits = s.k % ggml_blck_size(t) == 0;
            products.push_back(fits ? new Product(backend, s, w, x, t, false) : nullptr);
        }
        const double flops =
            2.0 * static_cast<double>(s.k) * static_cast<double>(s.n) * static_cast<double>(s.m);
        const int runs = std::max(1, static_cast<int>(2e8 / flops));
        for (int r = 0; r < repetitions; ++r) {
            for (Product* p : products) {
                if (p != nullptr) p->time(threads, runs);
            }
        }
        const bool few = s.m <= 8;
        const double bytes = static_cast<double>(s.k) * static_cast<double>(s.n) / 32 * 34;
        std::printf("%-21s %5d %6d %5d  ", s.name, static_cast<int>(s.k), static_cast<int>(s.n),
                    static_cast<int>(s.m));
        for (size_t i = 0; i < products.size(); ++i) {
            const std::string format = i < std::size(kOurs) ? " %10.*f" : " %7.*f";
            if (products[i] == nullptr) {
                std::printf(" %7s", "-");
            } else {
                std::printf(format.c_str(), few ? 1 : 0, (few ? bytes : flops) / products[i]->best / 1e9);
            }
            delete products[i];
        }
        std::printf("  %s\n", few ? "GB/s of Q8_0" : "GF/s");
        std::fflush(stdout);
    }
    ggml_backend_free(backend);
    return 0;
}
