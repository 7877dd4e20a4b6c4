// Every form of the fused attention that this machine can run, against double precision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "kernels/attention.h"
#include "kernels/attention_form.h"

namespace {

using namespace rustasr::kernels;

struct Problem {
    int64_t head_dim = 64, queries = 1, keys = 1, heads = 1, kv_heads = 1, batch = 1;
    ggml_type type = GGML_TYPE_F32;
    bool fused = false;                  // q, k and v are strided views with gaps between the rows
    int mask_heads = 0, mask_batch = 1;  // mask_heads 0: no mask
    ggml_type mask_type = GGML_TYPE_F16;
    bool causal = false;
    double masked_share = 0.3;  // share of -inf in a random mask
    std::vector<int32_t> lengths = {};
    float spread = 1;  // standard deviation of q and k
    int32_t before = AttentionOptions::kUnlimited, after = AttentionOptions::kUnlimited, window = 0;
    std::vector<int32_t> offsets = {};
    int64_t positions = 0;  // rows of the table for each direction, R; 0: no relative term
    ggml_type position_type = GGML_TYPE_F32;
    bool biases = true;  // of the relative term

    std::string name() const {
        std::string s = "D" + std::to_string(head_dim) + " Tq" + std::to_string(queries) + " Tk" +
                        std::to_string(keys) + " H" + std::to_string(heads) + "/" + std::to_string(kv_heads) +
                        " B" + std::to_string(batch) + " " + ggml_type_name(type);
        if (fused) s += " strided";
        if (mask_heads) s += " mask" + std::to_string(mask_heads);
        if (!lengths.empty()) s += " ragged";
        if (before != AttentionOptions::kUnlimited) s += " before " + std::to_string(before);
        if (after != AttentionOptions::kUnlimited) s += " after " + std::to_string(after);
        if (window) s += " window " + std::to_string(window);
        if (!offsets.empty()) s += " offset " + std::to_string(offsets[0]);
        if (positions) s += std::string(" positions ") + ggml_type_name(position_type);
        return s;
    }
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The graph, its operands as stored, and one result.
class Setup {
   public:
    Setup(const Problem& p, unsigned seed)
        : p_(p), random_(seed), context_(ggml_init({1 << 20, nullptr, true})) {
        const int64_t gap = p.fused ? 8 : 0;  // elements between rows
        q_ = operand(GGML_TYPE_F32, p.queries, p.heads, gap);
        k_ = operand(p.type, p.keys, p.kv_heads, gap);
        v_ = operand(p.type, p.keys, p.kv_heads, gap);
        if (p.mask_heads) {
            mask_ = ggml_new_tensor_4d(context_, p.mask_type, p.keys + (p.fused ? 3 : 0), p.queries,
                                       p.mask_heads, p.mask_batch);
        }
        if (!p.lengths.empty()) lengths_ = ggml_new_tensor_1d(context_, GGML_TYPE_I32, p.batch);
        if (!p.offsets.empty()) offsets_ = ggml_new_tensor_1d(context_, GGML_TYPE_I32, p.batch);
        if (p.positions) add_positions();
        backend_ = ggml_backend_cpu_init();
        buffer_ = ggml_backend_alloc_ctx_tensors(context_, backend_);
        fill(q_, p.spread);
        fill(k_, p.spread);
        fill(v_, 1);
        if (mask_) fill_mask();
        if (lengths_) memcpy(lengths_->data, p.lengths.data(), p.lengths.size() * sizeof(int32_t));
        if (offsets_) memcpy(offsets_->data, p.offsets.data(), p.offsets.size() * sizeof(int32_t));
        if (table_) fill(table_, p.spread);
        for (ggml_tensor* bias : {content_bias_, distance_bias_}) {
            if (bias) fill(bias, 1);
        }
    }
    Setup(const Setup&) = delete;
    ~Setup() {
        ggml_backend_buffer_free(buffer_);
        ggml_backend_free(backend_);
        ggml_free(context_);
    }

    float scale() const { return 1.0f / std::sqrt(static_cast<float>(p_.head_dim)); }

    std::vector<float> run(const AttentionForm& form, int threads) {
        ggml_context* c = ggml_init({1 << 20, nullptr, true});
        ggml_tensor* y = attention_with(form, c, q_, k_, v_, scale(), options());
        CHECK(y->ne[0] == p_.head_dim && y->ne[1] == p_.heads && y->ne[2] == p_.queries &&
              y->ne[3] == p_.batch);
        ggml_cgraph* graph = ggml_new_graph(c);
        ggml_build_forward_expand(graph, y);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend_);
        std::vector<float> out(static_cast<size_t>(ggml_nelements(y)), NAN);
        memcpy(y->data, out.data(), out.size() * sizeof(float));  // what is not written shows
        ggml_backend_cpu_set_n_threads(backend_, threads);
        ggml_backend_graph_compute(backend_, graph);
        memcpy(out.data(), y->data, out.size() * sizeof(float));
        ggml_backend_buffer_free(buffer);
        ggml_free(c);
        return out;
    }

    AttentionOptions options() const {
        AttentionOptions o;
        o.mask = mask_;
        o.lengths = lengths_;
        o.offsets = offsets_;
        o.before = p_.before;
        o.after = p_.after;
        o.window = p_.window;
        o.positions = {table_, content_bias_, distance_bias_};
        return o;
    }

    // The score of key j for query i of head h, without the mask.
    double score(int64_t i, int64_t j, int64_t h, int64_t b) const {
        const int64_t kv = h / (p_.heads / p_.kv_heads), centre = p_.positions - 1;
        const int64_t place = i + (offsets_ ? p_.offsets[b] : 0);
        double dot = 0;
        for (int64_t d = 0; d < p_.head_dim; d++) {
            const double q = value(q_, d, i, h, b);
            const double u = content_bias_ ? value(content_bias_, d, h, 0, 0) : 0;
            dot += (q + u) * value(k_, d, j, kv, b);
            if (!table_) continue;
            const double w = distance_bias_ ? value(distance_bias_, d, h, 0, 0) : 0;
            dot += (q + w) * value(table_, d, centre - place + j, h, 0);
        }
        return dot * scale();
    }
    bool sees(int64_t i, int64_t j, int64_t b) const {
        const int64_t place = i + (offsets_ ? p_.offsets[b] : 0);
        if (!p_.lengths.empty() && j >= p_.lengths[b]) return false;
        if (p_.window && i / p_.window != j / p_.window) return false;
        return j >= place - p_.before && j <= place + p_.after;
    }

    std::vector<double> reference() const {
        std::vector<double> out(static_cast<size_t>(p_.head_dim * p_.heads * p_.queries * p_.batch));
        std::vector<double> s(static_cast<size_t>(p_.keys));
        for (int64_t b = 0; b < p_.batch; b++) {
            for (int64_t h = 0; h < p_.heads; h++) {
                const int64_t kv = h / (p_.heads / p_.kv_heads);
                for (int64_t t = 0; t < p_.queries; t++) {
                    double best = -kInfinity, sum = 0;
                    for (int64_t j = 0; j < p_.keys; j++) {
                        s[j] = sees(t, j, b) ? score(t, j, h, b) : -kInfinity;
                        if (mask_ && sees(t, j, b))
                            s[j] += value(mask_, j, t, h % mask_->ne[2], b % mask_->ne[3]);
                        best = std::max(best, s[j]);
                    }
                    double* o = &out[((b * p_.queries + t) * p_.heads + h) * p_.head_dim];
                    if (best == -kInfinity) continue;
                    for (int64_t j = 0; j < p_.keys; j++) sum += s[j] = std::exp(s[j] - best);
                    for (int64_t j = 0; j < p_.keys; j++) {
                        if (s[j] == 0) continue;
                        for (int64_t d = 0; d < p_.head_dim; d++) o[d] += s[j] / sum * value(v_, d, j, kv, b);
                    }
                }
            }
        }
        return out;
    }

    void spoil_keys_from(int64_t first) {
        for (ggml_tensor* t : {k_, v_}) {
            for (int64_t b = 0; b < p_.batch; b++) {
                for (int64_t h = 0; h < p_.kv_heads; h++) {
                    for (int64_t j = first; j < p_.keys; j++) set(t, 0, j, h, b, NAN);
                }
            }
        }
    }

   private:
    // Parts of wider rows [D + gap, heads, n, B], permuted to [D, n, heads, B], as a fused projection gives
    // them.
    ggml_tensor* operand(ggml_type type, int64_t n, int64_t heads, int64_t gap) {
        if (!gap) return ggml_new_tensor_4d(context_, type, p_.head_dim, n, heads, p_.batch);
        ggml_tensor* whole = ggml_new_tensor_4d(context_, type, p_.head_dim + gap, heads, n, p_.batch);
        ggml_tensor* part =
            ggml_view_4d(context_, whole, p_.head_dim, heads, n, p_.batch, whole->nb[1], whole->nb[2],
                         whole->nb[3], static_cast<size_t>(gap / 2) * whole->nb[0]);
        return ggml_permute(context_, part, 0, 2, 1, 3);
    }
    // The table as parts of wider rows [heads * (D + gap), 2 R - 1], as a projection of all heads gives it.
    void add_positions() {
        const int64_t gap = p_.fused ? 8 : 0, d = p_.head_dim + gap, n = 2 * p_.positions - 1;
        ggml_tensor* whole = ggml_new_tensor_3d(context_, p_.position_type, d, p_.heads, n);
        table_ = ggml_permute(
            context_, ggml_view_3d(context_, whole, p_.head_dim, p_.heads, n, whole->nb[1], whole->nb[2], 0),
            0, 2, 1, 3);
        if (!p_.biases) return;
        content_bias_ = ggml_new_tensor_2d(context_, GGML_TYPE_F32, p_.head_dim, p_.heads);
        distance_bias_ = ggml_new_tensor_2d(context_, GGML_TYPE_F32, p_.head_dim, p_.heads);
    }
    static char* address(const ggml_tensor* t, int64_t i0, int64_t i1, int64_t i2, int64_t i3) {
        return static_cast<char*>(t->data) + static_cast<size_t>(i0) * t->nb[0] +
               static_cast<size_t>(i1) * t->nb[1] + static_cast<size_t>(i2) * t->nb[2] +
               static_cast<size_t>(i3) * t->nb[3];
    }
    static double value(const ggml_tensor* t, int64_t i0, int64_t i1, int64_t i2, int64_t i3) {
        const char* p = address(t, i0, i1, i2, i3);
        if (t->type == GGML_TYPE_F32) return *reinterpret_cast<const float*>(p);
        if (t->type == GGML_TYPE_F16) return ggml_fp16_to_fp32(*reinterpret_cast<const ggml_fp16_t*>(p));
        return ggml_bf16_to_fp32(*reinterpret_cast<const ggml_bf16_t*>(p));
    }
    static void set(ggml_tensor* t, int64_t i0, int64_t i1, int64_t i2, int64_t i3, float x) {
        char* p = address(t, i0, i1, i2, i3);
        if (t->type == GGML_TYPE_F32) *reinterpret_cast<float*>(p) = x;
        if (t->type == GGML_TYPE_F16) *reinterpret_cast<ggml_fp16_t*>(p) = ggml_fp32_to_fp16(x);
        if (t->type == GGML_TYPE_BF16) *reinterpret_cast<ggml_bf16_t*>(p) = ggml_fp32_to_bf16(x);
    }
    template <class Make>
    static void for_each(ggml_tensor* t, const Make& make) {
        for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
            for (int64_t i2 = 0; i2 < t->ne[2]; i2++) {
                for (int64_t i1 = 0; i1 < t->ne[1]; i1++) {
                    for (int64_t i0 = 0; i0 < t->ne[0]; i0++) set(t, i0, i1, i2, i3, make(i0, i1));
                }
            }
        }
    }
    // The gaps of a wider tensor become NaN: reading one shows.
    void fill(ggml_tensor* t, float spread) {
        if (t->view_src) for_each(t->view_src, [](int64_t, int64_t) { return NAN; });
        std::normal_distribution<float> normal(0, 1);
        for_each(t, [&](int64_t, int64_t) { return spread * normal(random_); });
    }
    void fill_mask() {
        std::uniform_real_distribution<float> uniform(0, 1);
        for_each(mask_, [&](int64_t key, int64_t query) {
            if (key >= p_.keys) return NAN;
            if (p_.causal) return key - query > p_.keys - p_.queries ? -kInfinity : 0.0f;
            const float x = uniform(random_);
            return x < p_.masked_share ? -kInfinity : 2 * x;
        });
    }

    Problem p_;
    std::mt19937 random_;
    ggml_context* context_;
    ggml_backend_t backend_;
    ggml_backend_buffer_t buffer_;
    ggml_tensor *q_, *k_, *v_, *mask_ = nullptr, *lengths_ = nullptr, *offsets_ = nullptr;
    ggml_tensor *table_ = nullptr, *content_bias_ = nullptr, *distance_bias_ = nullptr;
};

bool rounds_scores(const AttentionForm& form) { return std::string(form.name) == "avx512bf16"; }
bool rounds_values(const AttentionForm& form) { return std::string(form.name) == "avx512bf16 mixed"; }

// The greatest difference. NaN counts as infinite.
double difference(const std::vector<float>& found, const std::vector<double>& expected) {
    double worst = 0;
    for (size_t i = 0; i < found.size(); i++) {
        const double d = std::fabs(found[i] - expected[i]);
        worst = std::max(worst, std::isnan(d) ? HUGE_VAL : d);
    }
    return worst;
}

double tolerance_of(const AttentionForm& form, double exact, double fast) {
    return rounds_scores(form) ? fast : rounds_values(form) ? std::min(fast, 1.5e-2) : exact;
}

void check(const Problem& p, unsigned seed, double exact, double fast) {
    Setup setup(p, seed);
    const std::vector<double> expected = setup.reference();
    for (const AttentionForm* form : attention_usable_forms()) {
        const std::vector<float> one = setup.run(*form, 1);
        const double worst = difference(one, expected), tolerance = tolerance_of(*form, exact, fast);
        if (!(worst <= tolerance)) {
            rustasr::test::fail(__FILE__, __LINE__,
                                std::string(form->name) + ", " + p.name() + ": difference " +
                                    std::to_string(worst * 1e6) + "e-6");
        }
        CHECK(setup.run(*form, 2 + static_cast<int>(seed % 2)) == one);
    }
}

}  // namespace

// V is standard normal: its greatest elements are about 4, and BF16 may lose 2^-9 of one that has all the
// weight. With rounded scores rivals change their shares as well; with F32 scores (mixed) 1.5e-2 holds for
// any scores.
constexpr double kExact = 1e-5, kFast = 2e-3, kFastPeaked = 2e-2;
// The scores are sums of two products, or the keys are so few that one has all the weight.
constexpr double kFastDistances = 4e-2;

TEST_CASE("attention: many queries, every head size, odd counts") {
    unsigned seed = 1;
    for (int64_t d : {8, 40, 48, 64, 72, 80, 128, 256}) {
        for (int64_t queries : {9, 17, 49, 97, 200}) {
            for (int64_t keys : {64, 67, 130})
                check({d, queries, keys, 2, 2, 1}, seed++, kExact, kFastPeaked);
        }
    }
}

TEST_CASE("attention: few queries, every head size, odd counts") {
    unsigned seed = 1000;
    for (int64_t d : {8, 40, 48, 64, 72, 80, 128, 256}) {
        for (int64_t queries : {1, 2, 3, 5, 8}) {
            for (int64_t keys : {1, 7, 16, 33, 600})
                check({d, queries, keys, 3, 3, 1}, seed++, kExact, kFastPeaked);
        }
    }
}

TEST_CASE("attention: K and V in F16 and BF16, strided views") {
    unsigned seed = 2000;
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16}) {
        for (int64_t d : {40, 48, 64, 128}) {
            for (int64_t queries : {1, 4, 50, 101}) {
                Problem p{d, queries, 131, 3, 3, 2, type};
                p.fused = true;
                check(p, seed++, kExact, kFastPeaked);
            }
        }
    }
}

TEST_CASE("attention: BF16 products keep 2e-3 where the weights are spread, as in an encoder") {
    for (int64_t d : {48, 64, 128}) check({d, 64, 1500, 1, 1, 1, GGML_TYPE_F16}, 3000, kExact, kFast);
}

TEST_CASE("attention: grouped queries share a K/V head") {
    for (int64_t queries : {1, 3, 30}) check({64, queries, 77, 8, 2, 2}, 4000, kExact, kFastPeaked);
}

TEST_CASE("attention: ragged lengths, none and too long included") {
    for (int64_t queries : {1, 8, 70}) {
        Problem p{64, queries, 140, 2, 2, 5};
        p.lengths = {140, 1, 0, 65, 1000};
        check(p, 5000, kExact, kFastPeaked);
    }
}

TEST_CASE("attention: a batch member does not depend on its neighbours") {
    Problem p{64, 60, 90, 2, 2, 2};
    p.lengths = {90, 90};
    Problem ragged = p;
    ragged.lengths = {90, 33};
    for (const AttentionForm* form : attention_usable_forms()) {
        const std::vector<float> a = Setup(p, 5100).run(*form, 1), b = Setup(ragged, 5100).run(*form, 1);
        CHECK(std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(a.size() / 2), b.begin()));
        CHECK(a != b);
    }
}

TEST_CASE("attention: masks per head and batch, with -inf, in F16 and F32") {
    unsigned seed = 6000;
    for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_F32}) {
        for (int heads : {1, 4}) {
            for (int64_t queries : {1, 7, 50}) {
                Problem p{64, queries, 101, 4, 4, 2};
                p.mask_heads = heads;
                p.mask_batch = heads == 4 ? 2 : 1;
                p.mask_type = type;
                p.fused = true;
                check(p, seed++, kExact, kFastPeaked);
            }
        }
    }
}

TEST_CASE("attention: causal mask, whole tiles of keys masked") {
    for (int64_t queries : {5, 150}) {
        Problem p{64, queries, 150, 4, 2, 1};
        p.mask_heads = 1;
        p.causal = true;
        check(p, 7000, kExact, kFastPeaked);
    }
}

TEST_CASE("attention: a row without any key is zero") {
    for (int64_t queries : {3, 20}) {
        Problem p{64, queries, 70, 1, 1, 1};
        p.mask_heads = 1;
        p.masked_share = 2;
        check(p, 8000, 0, 0);
        p.mask_heads = 0;
        p.lengths = {0};
        check(p, 8001, 0, 0);
    }
}

// The rounding of a score of size 200 is 1e-5 by itself in F32, so that weights of rivals move by as much.
TEST_CASE("attention: great scores neither overflow nor lose the winner") {
    for (int64_t queries : {4, 40}) {
        Problem p{64, queries, 200, 2, 2, 1};
        p.spread = 8;
        check(p, 9000, 3e-4, 1.0);
        p.spread = 1e4f;
        Setup setup(p, 9001);
        for (const AttentionForm* form : attention_usable_forms()) {
            for (float x : setup.run(*form, 1)) CHECK(std::isfinite(x) && std::fabs(x) < 8);
        }
    }
}

TEST_CASE("attention: relative positions, every head size, odd counts") {
    unsigned seed = 10000;
    for (int64_t d : {8, 40, 48, 64, 72, 128, 256}) {
        for (int64_t n : {1, 2, 9, 17, 49, 97, 200, 330}) {
            Problem p{d, n, n, 2, 2, 1};
            p.positions = n;
            p.biases = n != 17;
            check(p, seed++, kExact, kFastDistances);
        }
    }
    Problem many{8, 1536, 1536, 2, 2, 1};  // items of the most tiles of rows: the ring of the table is full
    many.positions = 1536;
    check(many, seed++, kExact, kFastDistances);
}

TEST_CASE("attention: relative positions in ragged batches, strided, a table longer than needed, in F16") {
    unsigned seed = 11000;
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16}) {
        for (int64_t n : {20, 150}) {
            Problem p{48, n, n, 2, 2, 3, type};
            p.fused = true;
            p.lengths = std::vector<int32_t>{static_cast<int32_t>(n), 7, 0};
            p.positions = n + 5;
            p.position_type = type;
            check(p, seed++, kExact, kFastDistances);
            p.mask_heads = 2;
            check(p, seed++, kExact, kFastDistances);
        }
    }
}

TEST_CASE("attention: bands, with and without relative positions") {
    unsigned seed = 12000;
    for (int32_t reach : {0, 1, 7, 40, 150, 1000}) {
        for (int64_t n : {5, 60, 420}) {
            Problem p{32, n, n, 2, 2, 2};
            p.before = reach;
            p.after = reach / 2;
            p.lengths = std::vector<int32_t>{static_cast<int32_t>(n), static_cast<int32_t>(n / 2)};
            check(p, seed++, kExact, kFastDistances);
            p.positions = std::min<int64_t>(n, reach + 1);
            check(p, seed++, kExact, kFastDistances);
        }
    }
}

TEST_CASE("attention: causal, grouped queries, from a place of its own in every sequence") {
    unsigned seed = 13000;
    for (int64_t queries : {1, 3, 8, 60, 200}) {
        for (int64_t keys : {queries, queries + 170}) {
            Problem p{64, queries, keys, 4, 2, 2};
            p.after = 0;
            check(p, seed++, kExact, kFastDistances);
            p.offsets = std::vector<int32_t>{static_cast<int32_t>(keys - queries), 0};
            check(p, seed++, kExact, kFastDistances);
            p.before = 20;
            check(p, seed++, kExact, kFastDistances);
        }
    }
}

// What lies behind the last key that any query sees may be memory that was never written.
TEST_CASE("attention: causal form does not touch what lies behind the queries") {
    for (int64_t queries : {2, 5, 50}) {
        Problem p{64, queries, 400, 4, 2, 1};
        p.after = 0;
        p.offsets = std::vector<int32_t>{37};
        Setup setup(p, 13500);
        const std::vector<double> expected = setup.reference();
        setup.spoil_keys_from(37 + queries);
        for (const AttentionForm* form : attention_usable_forms()) {
            CHECK(difference(setup.run(*form, 1), expected) <= tolerance_of(*form, kExact, kFastDistances));
        }
    }
}

TEST_CASE("attention: windows, the last one short, some empty") {
    unsigned seed = 14000;
    for (int32_t window : {1, 4, 13, 104, 500}) {
        for (int64_t n : {1, 30, 333}) {
            Problem p{64, n, n, 4, 2, 2};
            p.window = window;
            p.lengths = std::vector<int32_t>{static_cast<int32_t>(n), static_cast<int32_t>(n / 3)};
            check(p, seed++, kExact, kFastDistances);
            p.after = 2;
            p.kv_heads = 4;
            p.positions = window;
            check(p, seed++, kExact, kFastDistances);
        }
    }
}

TEST_CASE("attention: wrong operands are refused with their shape") {
    ggml_context* c = ggml_init({1 << 20, nullptr, true});
    const AttentionForm& form = attention_form_portable();
    ggml_tensor* q = ggml_new_tensor_3d(c, GGML_TYPE_F32, 64, 5, 4);
    ggml_tensor* k = ggml_new_tensor_3d(c, GGML_TYPE_F16, 64, 7, 4);
    ggml_tensor* three = ggml_new_tensor_3d(c, GGML_TYPE_F16, 64, 7, 3);
    ggml_tensor* two = ggml_new_tensor_3d(c, GGML_TYPE_F16, 64, 7, 2);
    ggml_tensor* quantised = ggml_new_tensor_3d(c, GGML_TYPE_Q8_0, 64, 7, 4);
    ggml_tensor* small = ggml_new_tensor_2d(c, GGML_TYPE_F16, 6, 5);
    const auto refused = [&](ggml_tensor* keys, const AttentionOptions& o, const char* part) {
        CHECK_THROWS(attention_with(form, c, q, keys, keys, 1, o), rustasr::OptionError, part);
    };
    refused(three, {}, "[64, 7, 3, 1]");
    refused(quantised, {}, "q8_0");
    AttentionOptions o;
    o.mask = small;
    refused(k, o, "mask = f16 [6, 5");
    o = {};
    o.lengths = small;
    refused(k, o, "lengths");
    o = {};
    o.offsets = small;
    refused(k, o, "offsets");
    o = {};
    o.before = -1;
    refused(k, o, "found -1");
    o = {};
    o.window = 4;
    refused(k, o, "windows");
    o = {};
    o.positions.content_bias = ggml_new_tensor_2d(c, GGML_TYPE_F32, 64, 4);
    refused(k, o, "found none");
    o.positions.table = ggml_new_tensor_3d(c, GGML_TYPE_F16, 64, 11, 4);  // distances to 5: one short
    refused(k, o, "table = f16 [64, 11, 4");
    o.before = o.after = 5;
    attention_with(form, c, q, k, k, 1, o);
    refused(two, o, "as many k heads");
    o.positions.content_bias = ggml_new_tensor_2d(c, GGML_TYPE_F32, 64, 3);
    refused(k, o, "bias = f32 [64, 3");
    CHECK(!attention_supported(64, GGML_TYPE_Q8_0));
    CHECK(!attention_supported(60, GGML_TYPE_F32));
    ggml_free(c);
}
