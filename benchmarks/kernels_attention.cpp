// Fused attention beside ggml's: milliseconds and GF/s (4 D H Tq Tk B operations), interleaved, best of many.
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
using rustasr::kernels::Precision;

struct Shape {
    const char* name;
    int64_t head_dim, heads, kv_heads, queries, keys, batch;
    bool head_mask = false;
};

const Shape kShapes[] = {
    {"Whisper tiny encoder", 64, 6, 6, 1500, 1500, 1},
    {"Whisper base encoder", 64, 8, 8, 1500, 1500, 1},
    {"Whisper base encoder, 4 windows", 64, 8, 8, 1500, 1500, 4},
    {"Whisper turbo encoder", 64, 20, 20, 1500, 1500, 1},
    {"Parakeet, 30 s", 128, 8, 8, 375, 375, 1},
    {"Parakeet, 30 s, bias per head", 128, 8, 8, 375, 375, 1, true},
    {"GigaAM, 30 s", 48, 16, 16, 750, 750, 1},
    {"Qwen audio, 8 windows", 64, 14, 14, 104, 104, 8},
    {"Qwen decoder, prefill", 128, 16, 8, 450, 450, 1},
    {"Whisper base cross, 1 query", 64, 8, 8, 1, 1500, 1},
    {"Whisper base cross, 5 queries", 64, 8, 8, 5, 1500, 1},
    {"Whisper turbo cross, 1 query", 64, 20, 20, 1, 1500, 1},
    {"Whisper turbo cross, 8 queries", 64, 20, 20, 8, 1500, 1},
    {"Whisper turbo cross, prompt of 64", 64, 20, 20, 64, 1500, 1},
    {"Whisper turbo self, 128 keys", 64, 20, 20, 1, 128, 1},
    {"Qwen decoder, step", 128, 16, 8, 1, 500, 1},
};

// One graph of one attention operation with random operands.
class Case {
   public:
    Case(ggml_backend_t backend, const Shape& s, ggml_type type, const AttentionForm* form)
        : backend_(backend) {
        context_ = ggml_init({1 << 20, nullptr, true});
        ggml_tensor* q = ggml_new_tensor_4d(context_, GGML_TYPE_F32, s.head_dim, s.queries, s.heads, s.batch);
        ggml_tensor* k = ggml_new_tensor_4d(context_, type, s.head_dim, s.keys, s.kv_heads, s.batch);
        ggml_tensor* v = ggml_new_tensor_4d(context_, type, s.head_dim, s.keys, s.kv_heads, s.batch);
        ggml_tensor* mask = nullptr;
        if (s.head_mask)
            mask = ggml_new_tensor_4d(context_, GGML_TYPE_F16, s.keys, s.queries, s.heads, s.batch);
        const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
        ggml_tensor* y =
            form ? rustasr::kernels::attention_with(*form, context_, q, k, v, mask, scale, nullptr)
                 : ggml_flash_attn_ext(context_, q, k, v, mask, scale, 0.0f, 0.0f);
        graph_ = ggml_new_graph(context_);
        ggml_build_forward_expand(graph_, y);
        buffer_ = ggml_backend_alloc_ctx_tensors(context_, backend);
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        for (ggml_tensor* t : {q, k, v, mask}) {
            if (!t) continue;
            std::vector<float> x(static_cast<size_t>(ggml_nelements(t)));
            for (float& f : x) f = normal(random);
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
    const double work = 4.0 * static_cast<double>(s.head_dim * s.heads * s.queries * s.keys * s.batch);
    std::printf("%-34s", s.name);
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
