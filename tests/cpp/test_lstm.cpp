// The prediction and joint networks against plain double arithmetic, the kernels of every form that this
// machine can run, and what a malformed head says.

#include <deque>

#include "check.h"
#include "core/error.h"
#include "decode/transducer_network.h"
#include "ggml-alloc.h"
#include "ggml-cpu.h"
#include "kernels/elementwise.h"
#include "kernels/recurrent_form.h"
#include "nn/transducer.h"
#include "toy_transducer.h"

namespace {

using namespace rustasr;
using namespace rustasr::test;

void check_near(const std::vector<float>& found, const Doubles& expected, double tolerance) {
    REQUIRE(found.size() == expected.size());
    for (size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], tolerance);
}

std::vector<float> normal(size_t n, float spread, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> distribution(0, spread);
    std::vector<float> x(n);
    for (float& v : x) v = distribution(random);
    return x;
}

/// A tensor with these values, rounded to the type; `values` keeps what was stored.
struct Operand {
    ggml_tensor* tensor;
    std::vector<float> values;
};

/// One kernel call on the CPU backend.
class KernelRun {
   public:
    explicit KernelRun(int threads) : backend_(ggml_backend_cpu_init()) {
        ggml_backend_cpu_set_n_threads(backend_.get(), threads);
        context_.reset(ggml_init({1 << 16, nullptr, true}));
    }
    ggml_context* ctx() { return context_.get(); }
    Operand& operand(ggml_type type, int64_t n0, int64_t n1, float spread, uint32_t seed) {
        operands_.push_back(
            {ggml_new_tensor_2d(ctx(), type, n0, n1), normal(static_cast<size_t>(n0 * n1), spread, seed)});
        return operands_.back();
    }
    void compute(ggml_tensor* y) {
        ggml_cgraph* graph = ggml_new_graph_custom(ctx(), 16, false);
        ggml_build_forward_expand(graph, y);
        buffer_.reset(ggml_backend_alloc_ctx_tensors(ctx(), backend_.get()));
        for (Operand& o : operands_) {
            std::vector<uint8_t> rows(ggml_nbytes(o.tensor));
            if (o.tensor->type == GGML_TYPE_F32) {
                std::memcpy(rows.data(), o.values.data(), rows.size());
            } else {
                const auto* traits = ggml_get_type_traits(o.tensor->type);
                traits->from_float_ref(o.values.data(), rows.data(), static_cast<int64_t>(o.values.size()));
                traits->to_float(rows.data(), o.values.data(), static_cast<int64_t>(o.values.size()));
            }
            ggml_backend_tensor_set(o.tensor, rows.data(), 0, rows.size());
        }
        ggml_backend_graph_compute(backend_.get(), graph);
    }

   private:
    ggml_backend_ptr backend_;
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;
    std::deque<Operand> operands_;
};

const ggml_type kTypes[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16};

}  // namespace

TEST_CASE("recurrent kernels: the linear layer equals double arithmetic, whatever the columns and threads") {
    for (const kernels::RecurrentForm* form : kernels::recurrent_usable_forms()) {
        for (ggml_type type : kTypes) {
            for (const auto& [k, n] : {std::pair<int64_t, int64_t>{640, 33}, {37, 18}, {5, 3}}) {
                std::vector<float> alone;  // of the first column, on its own
                for (int64_t m : {1, 2, 3, 4, 5, 7, 8}) {
                    KernelRun run(static_cast<int>(1 + m % 3));
                    Operand &w = run.operand(type, k, n, 0.3f, 1),
                            &b = run.operand(GGML_TYPE_F32, n, 1, 1, 2),
                            &x = run.operand(GGML_TYPE_F32, k, m, 1, 3);
                    ggml_tensor* y =
                        kernels::narrow_linear_with(*form, run.ctx(), w.tensor, b.tensor, x.tensor);
                    run.compute(y);
                    const auto* found = static_cast<const float*>(y->data);
                    if (alone.empty()) alone.assign(found, found + n);
                    CHECK(std::equal(alone.begin(), alone.end(), found));
                    for (int64_t i = 0; i < n * m; ++i) {
                        double sum = static_cast<double>(b.values[static_cast<size_t>(i % n)]);
                        for (int64_t j = 0; j < k; ++j) {
                            sum += static_cast<double>(w.values[static_cast<size_t>(i % n * k + j)]) *
                                   static_cast<double>(x.values[static_cast<size_t>(i / n * k + j)]);
                        }
                        CHECK_NEAR(found[i], sum, 2e-5);
                    }
                }
            }
        }
    }
}

TEST_CASE("recurrent kernels: the LSTM step equals torch.nn.LSTM's formulas") {
    for (const kernels::RecurrentForm* form : kernels::recurrent_usable_forms()) {
        for (ggml_type type : kTypes) {
            for (const auto& [k, p] : {std::pair<int64_t, int64_t>{64, 48}, {7, 21}, {3, 1}}) {
                for (int64_t m : {1, 3, 6}) {
                    KernelRun run(static_cast<int>(1 + m % 3));
                    Operand &w = run.operand(type, k + p, 4 * p, 0.5f, 1),
                            &b = run.operand(GGML_TYPE_F32, 4 * p, 1, 2, 2),
                            &x = run.operand(GGML_TYPE_F32, k, m, 1, 3),
                            &state = run.operand(GGML_TYPE_F32, 2 * p, m, 1, 4);
                    ggml_tensor* y =
                        kernels::lstm_step_with(*form, run.ctx(), w.tensor, b.tensor, x.tensor, state.tensor);
                    run.compute(y);
                    for (int64_t column = 0; column < m; ++column) {
                        const auto* found = static_cast<const float*>(y->data) + column * y->ne[0];
                        const float* before = &state.values[static_cast<size_t>(2 * p * column)];
                        const auto gate = [&](int64_t row) {
                            double sum = static_cast<double>(b.values[static_cast<size_t>(row)]);
                            const float* weights = &w.values[static_cast<size_t>(row * (k + p))];
                            for (int64_t j = 0; j < k + p; ++j) {
                                const float in =
                                    j < k ? x.values[static_cast<size_t>(column * k + j)] : before[j - k];
                                sum += static_cast<double>(weights[j]) * static_cast<double>(in);
                            }
                            return sum;
                        };
                        const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
                        for (int64_t j = 0; j < p; ++j) {
                            const double c = sigmoid(gate(p + j)) * static_cast<double>(before[p + j]) +
                                             sigmoid(gate(j)) * std::tanh(gate(2 * p + j));
                            CHECK_NEAR(found[p + j], c, 5e-6);
                            CHECK_NEAR(found[j], sigmoid(gate(3 * p + j)) * std::tanh(c), 5e-6);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("recurrent kernels: a sequence is its steps, whatever the threads") {
    for (const kernels::RecurrentForm* form : kernels::recurrent_usable_forms()) {
        for (ggml_type type : kTypes) {
            for (int64_t p : {48, 21, 1}) {
                const int64_t n_steps = 5;
                KernelRun run(static_cast<int>(1 + p % 3));
                Operand &w = run.operand(type, p, 4 * p, 0.5f, 1),
                        &gates = run.operand(GGML_TYPE_F32, 4 * p, n_steps, 2, 2),
                        &start = run.operand(GGML_TYPE_F32, 2 * p, 1, 1, 3);
                ggml_tensor* y =
                    kernels::lstm_sequence_with(*form, run.ctx(), w.tensor, gates.tensor, start.tensor);
                run.compute(y);
                Doubles h(start.values.begin(), start.values.begin() + p);
                Doubles c(start.values.begin() + p, start.values.end());
                const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
                for (int64_t t = 0; t < n_steps; ++t) {
                    Doubles sums;
                    for (int64_t row = 0; row < 4 * p; ++row) {
                        auto sum = static_cast<double>(gates.values[static_cast<size_t>(4 * p * t + row)]);
                        for (int64_t j = 0; j < p; ++j) {
                            sum += static_cast<double>(w.values[static_cast<size_t>(row * p + j)]) *
                                   h[static_cast<size_t>(j)];
                        }
                        sums.push_back(sum);
                    }
                    const auto* found = static_cast<const float*>(y->data) + t * y->ne[0];
                    for (size_t j = 0; j < h.size(); ++j) {
                        const double *i = &sums[j], *f = i + p, *g = f + p, *o = g + p;
                        c[j] = sigmoid(*f) * c[j] + sigmoid(*i) * std::tanh(*g);
                        h[j] = sigmoid(*o) * std::tanh(c[j]);
                        CHECK_NEAR(found[j], h[j], 1e-5);
                        CHECK_NEAR(found[j + h.size()], c[j], 1e-5);
                    }
                }
            }
        }
    }
}

TEST_CASE("recurrent kernels: from both ends a sequence is two, alone as among others") {
    const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
    const int64_t n_steps = 6;
    for (const kernels::RecurrentForm* form : kernels::recurrent_usable_forms()) {
        for (ggml_type type : kTypes) {
            for (const auto& [p, m] :
                 {std::pair<int64_t, int64_t>{48, 1}, {21, 3}, {16, 5}, {1, 4}, {32, 9}}) {
                KernelRun run(static_cast<int>(1 + m % 3));
                const Operand* w[] = {&run.operand(type, p, 4 * p, 0.5f, 1),
                                      &run.operand(type, p, 4 * p, 0.5f, 2)};
                // Sequences one behind the other: columns of the same memory.
                Operand& gates = run.operand(GGML_TYPE_F32, 8 * p, n_steps * m, 2, 3);
                ggml_tensor* y = kernels::lstm_from_both_ends_with(
                    *form, run.ctx(), w[0]->tensor, w[1]->tensor,
                    ggml_reshape_3d(run.ctx(), gates.tensor, 8 * p, n_steps, m));
                run.compute(y);
                CHECK(y->ne[0] == 2 * p && y->ne[1] == n_steps && y->ne[2] == m);
                const auto* found = static_cast<const float*>(y->data);
                for (int64_t column = 0; column < m; ++column) {
                    for (int64_t end = 0; end < 2; ++end) {
                        Doubles h(static_cast<size_t>(p)), c(static_cast<size_t>(p));
                        for (int64_t i = 0; i < n_steps; ++i) {
                            const int64_t step = column * n_steps + (end ? n_steps - 1 - i : i);
                            Doubles sums;
                            for (int64_t row = 0; row < 4 * p; ++row) {
                                auto sum = static_cast<double>(
                                    gates.values[static_cast<size_t>(8 * p * step + 4 * p * end + row)]);
                                for (int64_t j = 0; j < p; ++j) {
                                    sum += static_cast<double>(
                                               w[end]->values[static_cast<size_t>(row * p + j)]) *
                                           h[static_cast<size_t>(j)];
                                }
                                sums.push_back(sum);
                            }
                            for (size_t j = 0; j < h.size(); ++j) {
                                const double *in = &sums[j], *f = in + p, *g = f + p, *o = g + p;
                                c[j] = sigmoid(*f) * c[j] + sigmoid(*in) * std::tanh(*g);
                                h[j] = sigmoid(*o) * std::tanh(c[j]);
                                CHECK_NEAR(found[step * 2 * p + end * p + static_cast<int64_t>(j)], h[j],
                                           1e-5);
                            }
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("recurrent kernels: a batch of sequences is each of them, whatever the threads") {
    const int64_t p = 21, n_steps = 4, batch = 3;
    for (const kernels::RecurrentForm* form : kernels::recurrent_usable_forms()) {
        for (int threads : {1, 2, 3, 5}) {
            KernelRun run(threads);
            Operand &w = run.operand(GGML_TYPE_F32, p, 4 * p, 0.5f, 1),
                    &gates = run.operand(GGML_TYPE_F32, 4 * p, n_steps * batch, 2, 2),
                    &start = run.operand(GGML_TYPE_F32, 2 * p, batch, 1, 3);
            ggml_tensor* all = ggml_reshape_3d(run.ctx(), gates.tensor, 4 * p, n_steps, batch);
            ggml_tensor* together =
                kernels::lstm_sequence_with(*form, run.ctx(), w.tensor, all, start.tensor);
            ggml_tensor* alone = nullptr;
            for (size_t b = 0; b < batch; ++b) {
                ggml_tensor* own = ggml_view_2d(run.ctx(), all, 4 * p, n_steps, all->nb[1], b * all->nb[2]);
                ggml_tensor* state = ggml_view_1d(run.ctx(), start.tensor, 2 * p, b * start.tensor->nb[1]);
                ggml_tensor* y = kernels::lstm_sequence_with(*form, run.ctx(), w.tensor, own, state);
                alone = alone ? ggml_concat(run.ctx(), alone, y, 2) : y;
            }
            ggml_tensor* off = ggml_sub(run.ctx(), together, alone);
            run.compute(off);
            const auto *found = static_cast<const float*>(off->data),
                       *value = static_cast<const float*>(together->data);
            for (int64_t i = 0; i < ggml_nelements(off); ++i) CHECK_NEAR(found[i], 0, 1e-6);
            CHECK(value[0] != value[together->ne[0] * n_steps]);  // the sequences differ
        }
    }
}

TEST_CASE("lstm: prediction and joint equal double arithmetic, in F32 and F16") {
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16}) {
        // ggml's own product rounds the activations to F16 with the weights; it is used without our kernels.
        const bool rounded = type == GGML_TYPE_F16 && !kernels::elementwise_supported();
        const double tolerance = rounded ? 2e-2 : 5e-5;
        for (int layers : {1, 2, 3}) {
            ToySizes sizes;
            sizes.pred_layers = layers;
            sizes.type = type;
            ToyTransducer toy(sizes, 5 + static_cast<uint32_t>(layers));
            toy.make_frames({4}, 1);
            TransducerNetwork network(toy.backend, toy.head);
            PlainTransducer::State state = toy.plain.start();
            PredictionPtr prediction = network.start();
            Doubles expected = toy.plain.predict(sizes.n_vocab, state);
            for (int32_t token : {3, 0, 3, 5, 1}) {
                check_near(prediction->output, expected, tolerance);
                const float* logits = network.joint({{toy.frame(0, 2), prediction->output.data()}});
                check_near({logits, logits + sizes.n_classes()}, toy.plain.joint(toy.frame(0, 2), expected),
                           tolerance);
                prediction = network.predict({{prediction.get(), token}}).front();
                expected = toy.plain.predict(token, state);
            }
        }
    }
}

TEST_CASE("lstm: columns do not see each other") {
    ToyTransducer toy({}, 9);
    toy.make_frames({9}, 1);
    TransducerNetwork network(toy.backend, toy.head);
    const PredictionPtr start = network.start();
    std::vector<PredictionInput> inputs;
    for (int32_t token = 0; token < 6; ++token) inputs.push_back({token % 2 ? start.get() : nullptr, token});
    const std::vector<PredictionPtr> together = network.predict(inputs);
    std::vector<JointInput> rows;
    for (int t = 0; t < 6; ++t)
        rows.push_back({toy.frame(0, t), together[static_cast<size_t>(t)]->output.data()});
    const auto n = static_cast<size_t>(toy.head.config.n_classes());
    const float* joined = network.joint(rows);
    const std::vector<float> logits(joined, joined + 6 * n);
    for (size_t i = 0; i < 6; ++i) {
        const PredictionPtr alone = network.predict({inputs[i]}).front();
        CHECK(alone->output == together[i]->output);
        CHECK(alone->state == together[i]->state);
        const float* row = network.joint({rows[i]});
        CHECK(std::equal(row, row + n, logits.begin() + static_cast<std::ptrdiff_t>(i * n)));
    }
}

TEST_CASE("lstm: joint.enc projects the encoder's frames") {
    ToyTransducer toy({}, 3);
    Graph graph(toy.backend, 16, kernels::Precision::F32);
    ggml_tensor* x = graph.input(GGML_TYPE_F32, {toy.head.config.d_model, 5});
    ggml_tensor* y = toy.head.project(graph, x);
    graph.output(y);
    graph.finish();
    const std::vector<float> values = normal(static_cast<size_t>(ggml_nelements(x)), 1, 4);
    write(x, values.data());
    graph.run();
    std::vector<float> found(static_cast<size_t>(ggml_nelements(y)));
    read(y, found.data());
    Doubles expected;
    for (size_t i = 0; i < 5; ++i) {
        const Doubles row = toy.plain.linear(
            "joint.enc",
            Doubles(values.begin() + static_cast<int>(7 * i), values.begin() + static_cast<int>(7 * i + 7)));
        expected.insert(expected.end(), row.begin(), row.end());
    }
    check_near(found, expected, 1e-5);
}

namespace {

void load_head(const ToyFile& file) {
    WeightStore store(file.parse(), find_device("cpu"));
    const TransducerHead head(store.root(), TransducerConfig::read(store.file(), file.sizes.d_model));
    store.load(1);
}

/// A toy file with the key head.<name> written as `entry` instead.
ToyFile with_key(const std::string& name, const Bytes& entry, std::vector<int32_t> durations = {0, 1, 2}) {
    ToySizes sizes;
    sizes.durations = std::move(durations);
    ToyFile file(sizes, 1);
    const std::vector<uint8_t> head = Bytes().str("head." + name).get();
    for (Bytes& known : file.image.entries) {
        if (known.size() > head.size() && std::equal(head.begin(), head.end(), known.get().begin()))
            known = entry;
    }
    return file;
}

Bytes u32(const std::string& key, uint32_t value) { return Bytes().str(key).put<uint32_t>(U32).put(value); }

}  // namespace

TEST_CASE("lstm: malformed head keys name the key") {
    load_head(with_key("nothing", {}));
    const auto bad = [](const std::string& name, const Bytes& entry) { load_head(with_key(name, entry)); };
    CHECK_THROWS(bad("type", Bytes().str("head.type").put<uint32_t>(STRING).str("ctc")), ModelFileError,
                 "head.type");
    CHECK_THROWS(bad("blank_id", u32("head.blank_id", 0)), ModelFileError, "head.blank_id");
    CHECK_THROWS(bad("blank_id", u32("head.blank_id", 5)), ModelFileError,
                 "expected 6 as head.n_vocab, found 5");
    CHECK_THROWS(bad("pred_layers", u32("head.pred_layers", 0)), ModelFileError, "head.pred_layers");
    CHECK_THROWS(bad("pred_layers", u32("head.pred_layers", 1000)), ModelFileError, "head.pred_layers");
    CHECK_THROWS(bad("pred_hidden", u32("head.pred_hidden", 1u << 31)), ModelFileError, "head.pred_hidden");
    CHECK_THROWS(bad("joint_hidden", u32("head.joint_hidden", 0)), ModelFileError, "head.joint_hidden");
    CHECK_THROWS(bad("max_symbols", u32("head.max_symbols", 0)), ModelFileError, "head.max_symbols");
    CHECK_THROWS(bad("max_symbols", u32("head.other", 0)), ModelFileError, "head.max_symbols");
    CHECK_THROWS(bad("durations", u32("head.durations", 4)), ModelFileError, "head.durations");
    CHECK_THROWS(load_head(with_key("nothing", {}, {0, 1, -1})), ModelFileError, "head.durations");
    const Bytes none = GgufImage::array_head("head.durations", I32, 0);
    CHECK_THROWS(bad("durations", none), ModelFileError, "expected 1 to 64 durations, found 0");
}

TEST_CASE("lstm: wrong shapes and types name the tensor") {
    CHECK_THROWS(load_head(with_key("pred_hidden", u32("head.pred_hidden", 12))), ModelFileError,
                 "prediction.embed.weight");
    CHECK_THROWS(load_head(with_key("pred_layers", u32("head.pred_layers", 3))), ModelFileError,
                 "prediction.lstm.2.weight");
    CHECK_THROWS(load_head(with_key("pred_layers", u32("head.pred_layers", 1))), ModelFileError,
                 "prediction.lstm.1");
    CHECK_THROWS(load_head(with_key("joint_hidden", u32("head.joint_hidden", 8))), ModelFileError,
                 "joint.enc");
    const Bytes four = GgufImage::array_head("head.durations", I32, 4).put(0).put(1).put(2).put(3);
    CHECK_THROWS(load_head(with_key("durations", four)), ModelFileError, "joint.out.weight");

    ToySizes sizes;
    sizes.pred_hidden = 32;
    sizes.joint_hidden = 32;
    ToyFile file(sizes, 1);
    for (Bytes& tensor : file.image.tensors) {
        const std::vector<uint8_t> name = Bytes().str("joint.pred.weight").get();
        if (!std::equal(name.begin(), name.end(), tensor.get().begin())) continue;
        std::vector<uint8_t> bytes = tensor.get();
        bytes[bytes.size() - 12] = GGML_TYPE_Q8_0;  // the type, before the offset
        tensor = Bytes();
        for (uint8_t byte : bytes) tensor.put(byte);
    }
    CHECK_THROWS(load_head(file), ModelFileError, "joint.pred.weight: expected f32, f16 or bf16, found q8_0");
}
