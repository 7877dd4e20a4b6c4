// Fused attention beside ggml's: milliseconds and GF/s (4 D H B operations for each
// query and key that it sees, 6 with distances), interleaved, best of many.
//
//     kernels_attention [threads] [seconds per row] [part of a shape's name]
//
// With one thread it counts processor time, which other programs on the machine disturb less.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "kernels/attention_form.h"

namespace {

using rustasr::kernels::AttentionForm;
using rustasr::kernels::AttentionOptions;
using rustasr::kernels::Precision;

struct Shape {
    const char* name;
    int64_t head_dim, heads, kv_heads, queries, keys, batch;
    bool relative = false;  // with a term for distances: 6 D H Tq Tk B operations
    int32_t before = AttentionOptions::kUnlimited, after = AttentionOptions::kUnlimited, window = 0;
};

constexpr int32_t kAll = AttentionOptions::kUnlimited;

const Shape kShapes[] = {
    {"Whisper tiny encoder", 64, 6, 6, 1500, 1500, 1},
    {"Whisper base encoder", 64, 8, 8, 1500, 1500, 1},
    {"Whisper base encoder, 4 windows", 64, 8, 8, 1500, 1500, 4},
    {"Whisper turbo encoder", 64, 20, 20, 1500, 1500, 1},
    {"Parakeet, 30 s", 128, 8, 8, 375, 375, 1},
    {"Parakeet, 30 s, distances", 128, 8, 8, 375, 375, 1, true},
    {"Parakeet, 5 min, distances, 256 frames each side", 128, 8, 8, 3750, 3750, 1, true, 256, 256},
    {"GigaAM, 30 s", 48, 16, 16, 750, 750, 1},
    {"Qwen audio, 8 windows in a batch", 64, 14, 14, 104, 104, 8},
    {"Qwen audio, windows", 64, 14, 14, 832, 832, 1, false, kAll, kAll, 104},
    {"Qwen decoder, prefill", 128, 16, 8, 450, 450, 1},
    {"Qwen decoder, prefill, causal", 128, 16, 8, 450, 450, 1, false, kAll, 0},
    {"Whisper base cross, 1 query", 64, 8, 8, 1, 1500, 1},
    {"Whisper base cross, 5 queries", 64, 8, 8, 5, 1500, 1},
    {"Whisper turbo cross, 1 query", 64, 20, 20, 1, 1500, 1},
    {"Whisper turbo cross, 8 queries", 64, 20, 20, 8, 1500, 1},
    {"Whisper turbo cross, prompt of 64", 64, 20, 20, 64, 1500, 1},
    {"Whisper turbo self, 128 keys", 64, 20, 20, 1, 128, 1},
    {"Qwen decoder, step", 128, 16, 8, 1, 500, 1},
};

bool sees(const Shape& s, int64_t i, int64_t j) {
    return j >= i - s.before && j <= i + s.after && (!s.window || i / s.window == j / s.window);
}

// One graph of one attention operation with random operands.
class Case {
   public:
    Case(ggml_backend_t backend, const Shape& s, ggml_type type, const AttentionForm* form)
        : backend_(backend) {
        context_ = ggml_init({1 << 20, nullptr, true});
        ggml_tensor* q = ggml_new_tensor_4d(context_, GGML_TYPE_F32, s.head_dim, s.queries, s.heads, s.batch);
        ggml_tensor* k = ggml_new_tensor_4d(context_, type, s.head_dim, s.keys, s.kv_heads, s.batch);
        ggml_tensor* v = ggml_new_tensor_4d(context_, type, s.head_dim, s.keys, s.kv_heads, s.batch);
        const bool limited = s.before != kAll || s.after != kAll || s.window;
        ggml_tensor *mask = nullptr, *table = nullptr;
        if (limited && !form) mask = ggml_new_tensor_2d(context_, GGML_TYPE_F16, s.keys, s.queries);
        if (s.relative)
            table = ggml_new_tensor_3d(context_, GGML_TYPE_F32, s.head_dim, 2 * s.keys - 1, s.heads);
        ggml_tensor* y = form ? ours(*form, s, q, k, v, table) : theirs(s, q, k, v, mask, table);
        graph_ = ggml_new_graph(context_);
        ggml_build_forward_expand(graph_, y);
        buffer_ = ggml_backend_alloc_ctx_tensors(context_, backend);
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        for (ggml_tensor* t : {q, k, v, mask, table}) {
            if (!t) continue;
            std::vector<float> x(static_cast<size_t>(ggml_nelements(t)));
            for (float& f : x) f = normal(random);
            if (t == mask) {
                for (size_t i = 0; i < x.size(); i++) x[i] = sees(s, i / s.keys, i % s.keys) ? 0 : -INFINITY;
            }
            std::vector<char> bytes(ggml_nbytes(t));
            ggml_quantize_chunk(t->type, x.data(), bytes.data(), 0, ggml_nrows(t), t->ne[0], nullptr);
            ggml_backend_tensor_set(t, bytes.data(), 0, bytes.size());
        }
    }
    Case(const Case&) = delete;
    ~Case() {
        ggml_backend_buffer_free(buffer_);
        ggml_free(context_);
    }
    double seconds(int repeats, bool processor_time) {
        const std::clock_t ticks = std::clock();
        const auto begin = std::chrono::steady_clock::now();
        for (int i = 0; i < repeats; i++) ggml_backend_graph_compute(backend_, graph_);
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
        const double used = static_cast<double>(std::clock() - ticks) / CLOCKS_PER_SEC;
        return (processor_time ? used : elapsed.count()) / repeats;
    }
    double best = 1e9;

   private:
    static float scale(const Shape& s) { return 1.0f / std::sqrt(static_cast<float>(s.head_dim)); }
    ggml_tensor* ours(const AttentionForm& form, const Shape& s, ggml_tensor* q, ggml_tensor* k,
                      ggml_tensor* v, ggml_tensor* table) {
        AttentionOptions options;
        options.before = s.before;
        options.after = s.after;
        options.window = s.window;
        options.positions.table = table;
        return attention_with(form, context_, q, k, v, scale(s), options);
    }
    ggml_tensor* theirs(const Shape& s, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                        ggml_tensor* table) {
        ggml_context* c = context_;
        if (!table) return ggml_flash_attn_ext(c, q, k, v, mask, scale(s), 0.0f, 0.0f);
        ggml_tensor* far = ggml_mul_mat(c, table, q);  // [2 T - 1, T, H]
        ggml_tensor* shifted = ggml_view_3d(c, far, s.keys, s.queries, s.heads, far->nb[1] - 4, far->nb[2],
                                            static_cast<size_t>(s.keys - 1) * 4);
        ggml_tensor* scores = ggml_add_inplace(c, ggml_mul_mat(c, k, q), shifted);
        ggml_tensor* weights = ggml_soft_max_ext(c, scores, mask, scale(s), 0.0f);
        return ggml_mul_mat(c, ggml_cont(c, ggml_transpose(c, v)), weights);
    }

    ggml_backend_t backend_;
    ggml_context* context_;
    ggml_cgraph* graph_;
    ggml_backend_buffer_t buffer_;
};

void measure(ggml_backend_t backend, const Shape& s, double budget, bool processor_time) {
    struct Entry {
        std::string name;
        ggml_type type;
        const AttentionForm* form;
    };
    std::vector<Entry> entries = {{"ggml f16", GGML_TYPE_F16, nullptr}, {"ggml f32", GGML_TYPE_F32, nullptr}};
    const AttentionForm* last = nullptr;
    for (Precision precision : {Precision::F32, Precision::Mixed, Precision::Fast}) {
        const AttentionForm* form = rustasr::kernels::attention_chosen_form(precision);
        if (!form || form == last) continue;
        last = form;
        entries.push_back({std::string(form->name) + " f32", GGML_TYPE_F32, form});
        entries.push_back({std::string(form->name) + " f16", GGML_TYPE_F16, form});
    }
    std::vector<Case*> cases;
    for (const Entry& e : entries) cases.push_back(new Case(backend, s, e.type, e.form));
    double spent = 0;
    const int repeats = std::max(1, static_cast<int>(0.004 / cases[0]->seconds(3, processor_time)));
    for (int round = 0; round < 5 || (spent < budget && round < 2000); round++) {
        for (Case* c : cases) {
            const double t = c->seconds(repeats, processor_time);
            c->best = std::min(c->best, t);
            spent += t * repeats;
        }
    }
    int64_t pairs = 0;
    for (int64_t i = 0; i < s.queries; i++) {
        for (int64_t j = 0; j < s.keys; j++) pairs += sees(s, i, j);
    }
    const double work =
        (s.relative ? 6.0 : 4.0) * static_cast<double>(s.head_dim * s.heads * pairs * s.batch);
    std::printf("%-50s", s.name);
    for (size_t i = 0; i < cases.size(); i++) {
        std::printf(" | %s %.3f (%.0f)", entries[i].name.c_str(), cases[i]->best * 1e3,
                    work / cases[i]->best / 1e9);
        delete cases[i];
    }
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
    const double budget = argc > 2 ? std::atof(argv[2]) : 2.0;
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, threads);
    std::printf("milliseconds (GF/s), %d threads, %s time\n", threads, threads == 1 ? "processor" : "wall");
    for (const Shape& s : kShapes) {
        if (argc <= 3 || std::strstr(s.name, argv[3])) measure(backend, s, budget, threads == 1);
    }
    ggml_backend_free(backend);
    return 0;
}
