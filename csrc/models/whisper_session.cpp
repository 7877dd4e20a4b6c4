// Runs Whisper's networks: which graphs are kept, what lies on the device, and the calls of a Session.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <tuple>

#include "core/error.h"
#include "core/last_pass.h"
#include "decode/timestamp_rules.h"
#include "kernels/elementwise.h"
#include "models/whisper.h"

namespace rustasr {
namespace {

/// Keys and values that the decoder blocks make of the audio, for up to `capacity` windows.
struct AudioMemory {
    AudioMemory(const Backend& backend, const WhisperConfig& c, int n_windows, ggml_type type)
        : capacity(n_windows), n_frames(c.n_audio_ctx) {
        context.reset(ggml_init(
            {(2 * static_cast<size_t>(c.n_text_layer) + 1) * ggml_tensor_overhead(), nullptr, true}));
        const int64_t d_head = c.n_text_state / c.n_text_head, rows = int64_t{c.n_audio_ctx} * n_windows;
        for (int i = 0; i < c.n_text_layer; ++i) {
            keys.push_back(ggml_new_tensor_3d(context.get(), type, d_head, rows, c.n_text_head));
            values.push_back(ggml_new_tensor_3d(context.get(), type, d_head, rows, c.n_text_head));
        }
        buffer = backend.allocate(context.get(), "the encoded audio");
    }

    int capacity;
    int n_frames;                            // of a window
    std::vector<ggml_tensor*> keys, values;  // [d/n_head, 1500·capacity, n_head]

   private:
    ggml_context_ptr context;
    ggml_backend_buffer_ptr buffer;
};

class WhisperEncoded : public Encoded {
   public:
    WhisperEncoded(std::shared_ptr<AudioMemory> memory, int batch)
        : memory(std::move(memory)), batch_(batch) {}
    int batch() const override { return batch_; }
    std::vector<int> lengths() const override {
        return std::vector<int>(static_cast<size_t>(batch_), memory->n_frames);
    }
    const std::shared_ptr<AudioMemory> memory;

   private:
    int batch_;
};

/// Enough for any graph here: a layer has up to 40 tensors, what is looked at 5 each.
size_t most_nodes(int n_layer, size_t n_taps) {
    return 128 + 64 * static_cast<size_t>(n_layer) + 16 * n_taps;
}

/// Which encoder graph: from `batch` windows into a memory.
struct EncoderShape {
    const AudioMemory* memory;
    int batch;
    std::vector<std::string> taps;

    bool operator==(const EncoderShape& o) const {
        return std::tie(memory, batch, taps) == std::tie(o.memory, o.batch, o.taps);
    }
};

struct EncoderPass {
    EncoderPass(Backend& backend, size_t max_nodes, kernels::Precision precision,
                std::vector<std::string> taps, GraphMemory memory)
        : graph(backend, max_nodes, precision, std::move(taps), std::move(memory)) {}
    Graph graph;
    ggml_tensor* mel = nullptr;   // [n_mels, 3002, B]
    ggml_tensor* rows = nullptr;  // I64 [1500·B]: where in the memory the keys and values go
};

/// Which decoder graph: over windows [first, first + n_windows) of a memory.
struct DecoderShape {
    const AudioMemory* memory;
    int first, n_windows, n_tokens, n_kv;
    int n_out;  // rows of logits per window; 0: one per token
    std::vector<std::string> taps = {};

    auto key() const { return std::tie(memory, first, n_windows, n_tokens, n_kv, n_out, taps); }
    bool operator==(const DecoderShape& other) const { return key() == other.key(); }
};

struct DecoderPass {
    DecoderPass(Backend& backend, size_t max_nodes, kernels::Precision precision,
                std::vector<std::string> taps, GraphMemory memory)
        : graph(backend, max_nodes, precision, std::move(taps), std::move(memory)) {}
    Graph graph;
    ggml_tensor* tokens = nullptr;     // I32 [T·W]
    ggml_tensor* positions = nullptr;  // I32 [T·W]
    ggml_tensor* cells = nullptr;      // I64 [T, 1, W]
    ggml_tensor* mask = nullptr;       // F16 [n_kv, T, 1, W]
    ggml_tensor* lengths = nullptr;    // I32 [W]
    ggml_tensor* rows = nullptr;       // I32 [n_out·W], null when every row counts
    ggml_tensor* logits = nullptr;     // [n_vocab, n_out·W]
};

class WhisperSession : public Session {
   public:
    WhisperSession(std::shared_ptr<const WhisperModel> model, ggml_backend_dev_t device)
        : Session(device, model->threads(), model->frontend),
          model_(std::move(model)),
          config_(model_->config),
          types_(model_->decoder.logits.type()) {}

    std::shared_ptr<Encoded> encode(const std::vector<MatrixView>& features) override;
    std::map<std::string, Matrix> encode_taps(const std::vector<MatrixView>& features,
                                              const std::vector<std::string>& names) override;
    Matrix detect_language(Encoded& encoded) override;
    std::vector<Decoded> decode(Encoded& encoded, const std::vector<int>& windows,
                                const std::vector<std::vector<int32_t>>& prompts,
                                const DecodeOptions& options, const OnToken& on_token) override;
    std::vector<TokenAlignment> align(Encoded& encoded, const std::vector<int>& windows,
                                      const std::vector<std::vector<int32_t>>& text,
                                      const std::vector<std::vector<int32_t>>& prefix,
                                      const std::vector<int>& n_frames) override;
    std::map<std::string, Matrix> decode_taps(Encoded& encoded, int window,
                                              const std::vector<int32_t>& tokens,
                                              const std::vector<std::string>& names) override;

   private:
    class Steps;

    std::shared_ptr<AudioMemory> memory_for(int n_windows);
    std::unique_ptr<EncoderPass> build_encoder(const EncoderShape& shape, GraphMemory graph_memory);
    const Graph& run_encoder(const AudioMemory& memory, const std::vector<MatrixView>& features, int first,
                             int n_windows, std::vector<std::string> taps);
    void set_mel(EncoderPass& pass, const MatrixView* features, int batch) const;

    KvCache& cache_for(int n_windows, int n_cells);
    std::unique_ptr<DecoderPass> build_decoder(const DecoderShape& shape, GraphMemory graph_memory);
    DecoderPass& decoder_pass(const DecoderShape& shape);
    const Graph& read_tokens(WhisperEncoded& encoded, int window, const std::vector<int32_t>& tokens,
                             std::vector<std::string> taps);
    TokenAlignment align_window(WhisperEncoded& encoded, int window, const std::vector<int32_t>& text,
                                const std::vector<int32_t>& prefix, int n_frames);
    void check_tokens(const std::vector<int32_t>& tokens) const;
    static WhisperEncoded& own(Encoded& encoded) { return dynamic_cast<WhisperEncoded&>(encoded); }
    static void check_window(const Encoded& encoded, int window);

    std::shared_ptr<const WhisperModel> model_;
    const WhisperConfig& config_;
    AttentionTypes types_;
    std::vector<std::shared_ptr<AudioMemory>> memories_;
    LastPass<EncoderShape, EncoderPass> encoder_pass_;
    std::unique_ptr<KvCache> cache_;
    LastPass<DecoderShape, DecoderPass> decoder_pass_;
};

// --- encoder
// ---------------------------------------------------------------------------------------------------

std::shared_ptr<AudioMemory> WhisperSession::memory_for(int n_windows) {
    for (auto& memory : memories_) {
        if (memory.use_count() == 1 && memory->capacity >= n_windows) return memory;
    }
    // A free one that is too small is replaced; graphs that point into it go with it.
    const auto small =
        std::find_if(memories_.begin(), memories_.end(), [](const auto& m) { return m.use_count() == 1; });
    if (small != memories_.end()) {
        decoder_pass_.clear();
        encoder_pass_.clear();
        memories_.erase(small);
    }
    memories_.push_back(std::make_shared<AudioMemory>(backend_, config_, n_windows, types_.cache));
    return memories_.back();
}

std::unique_ptr<EncoderPass> WhisperSession::build_encoder(const EncoderShape& s, GraphMemory graph_memory) {
    const size_t most = most_nodes(config_.n_audio_layer + config_.n_text_layer, s.taps.size());
    auto pass =
        std::make_unique<EncoderPass>(backend_, most, types_.precision, s.taps, std::move(graph_memory));
    Graph& graph = pass->graph;
    ggml_context* ctx = graph.ctx();
    const int64_t d = config_.n_text_state, n_head = config_.n_text_head,
                  n_rows = int64_t{config_.n_audio_ctx} * s.batch;
    pass->mel = graph.input(GGML_TYPE_F32, {config_.n_mels, config_.n_mel_frames() + 2, s.batch});
    pass->rows = graph.input(GGML_TYPE_I64, {n_rows});
    LinearInput audio{model_->encoder(graph, pass->mel)};
    for (size_t i = 0; i < model_->decoder.blocks.size(); ++i) {
        ggml_tensor* kv = model_->decoder.blocks[i].audio_kv(graph, audio);  // [2d, 1500·B]
        graph.effect(ggml_set_rows(ctx, s.memory->keys[i], split_heads(graph, kv, d, n_head, 0, n_rows, 1),
                                   pass->rows));
        graph.effect(ggml_set_rows(ctx, s.memory->values[i], split_heads(graph, kv, d, n_head, 1, n_rows, 1),
                                   pass->rows));
    }
    graph.finish();
    return pass;
}

void WhisperSession::set_mel(EncoderPass& pass, const MatrixView* features, int batch) const {
    const auto n_mels = static_cast<size_t>(config_.n_mels),
               n_rows = static_cast<size_t>(config_.n_mel_frames()) + 2;
    std::vector<float> mel(n_mels * n_rows * static_cast<size_t>(batch), 0.0f);
    for (int b = 0; b < batch; ++b) {
        const MatrixView& window = features[b];
        std::copy_n(window.values, window.rows * window.columns,
                    &mel[(static_cast<size_t>(b) * n_rows + 1) * n_mels]);
    }
    write(pass.mel, mel.data());
}

/// Windows [first, first + n_windows) of the features into these places of the memory.
const Graph& WhisperSession::run_encoder(const AudioMemory& memory, const std::vector<MatrixView>& features,
                                         int first, int n_windows, std::vector<std::string> taps) {
    const EncoderShape shape{&memory, n_windows, std::move(taps)};
    EncoderPass& pass = encoder_pass_.of(
        shape, [&](GraphMemory graph_memory) { return build_encoder(shape, std::move(graph_memory)); });
    std::vector<int64_t> rows(static_cast<size_t>(pass.rows->ne[0]));
    std::iota(rows.begin(), rows.end(), int64_t{first} * config_.n_audio_ctx);
    set_mel(pass, &features[static_cast<size_t>(first)], n_windows);
    write(pass.rows, rows.data());
    pass.graph.run();
    return pass.graph;
}

std::shared_ptr<Encoded> WhisperSession::encode(const std::vector<MatrixView>& features) {
    for (const MatrixView& window : features) {
        if (window.columns == config_.n_mels && window.rows >= 1 && window.rows <= config_.n_mel_frames())
            continue;
        throw OptionError("features: expected 1.." + std::to_string(config_.n_mel_frames()) + " frames of " +
                          std::to_string(config_.n_mels) + " mels, found " + std::to_string(window.rows) +
                          " of " + std::to_string(window.columns));
    }
    if (features.empty()) throw OptionError("features: expected at least one window, found none");
    const int batch = static_cast<int>(features.size());
    std::shared_ptr<AudioMemory> memory = memory_for(batch);

    // A CPU's cores are busy with one window of 1500 positions; a batch would only need more memory.
    const int at_once = backend_.on_cpu() ? 1 : batch;
    for (int first = 0; first < batch; first += at_once) run_encoder(*memory, features, first, at_once, {});
    return std::make_shared<WhisperEncoded>(std::move(memory), batch);
}

std::map<std::string, Matrix> WhisperSession::encode_taps(const std::vector<MatrixView>& features,
                                                          const std::vector<std::string>& names) {
    const int batch = static_cast<int>(features.size());
    std::shared_ptr<AudioMemory> memory = memory_for(batch);
    return collect_taps(run_encoder(*memory, features, 0, batch, names), names);
}

// --- decoder
// ---------------------------------------------------------------------------------------------------

KvCache& WhisperSession::cache_for(int n_windows, int n_cells) {
    n_cells = std::max(n_cells, config_.n_text_ctx);
    if (!cache_ || cache_->n_windows() < n_windows || cache_->n_cells() < n_cells) {
        decoder_pass_.clear();
        if (cache_) n_windows = std::max(n_windows, cache_->n_windows());
        cache_.reset();
        cache_ = std::make_unique<KvCache>(backend_, config_.n_text_layer,
                                           config_.n_text_state / config_.n_text_head, config_.n_text_head,
                                           n_cells, n_windows, types_.cache);
    }
    return *cache_;
}

std::unique_ptr<DecoderPass> WhisperSession::build_decoder(const DecoderShape& s, GraphMemory graph_memory) {
    const size_t most = most_nodes(config_.n_text_layer, s.taps.size());
    auto pass =
        std::make_unique<DecoderPass>(backend_, most, types_.precision, s.taps, std::move(graph_memory));
    Graph& graph = pass->graph;
    ggml_context* ctx = graph.ctx();
    const WhisperDecoder& decoder = model_->decoder;
    const int64_t n_rows = int64_t{s.n_tokens} * s.n_windows;
    pass->tokens = graph.input(GGML_TYPE_I32, {n_rows});
    pass->positions = graph.input(GGML_TYPE_I32, {n_rows});
    pass->cells = graph.input(GGML_TYPE_I64, {s.n_tokens, 1, s.n_windows});
    pass->mask = graph.input(GGML_TYPE_F16, {s.n_kv, s.n_tokens, 1, s.n_windows});
    pass->lengths = graph.input(GGML_TYPE_I32, {s.n_windows});
    const DecoderContext context{s.n_tokens,  s.n_windows, s.n_kv,       cache_.get(),
                                 pass->cells, pass->mask,  pass->lengths};

    ggml_tensor* x = ggml_add(ctx, decoder.token_embedding(graph, pass->tokens),
                              ggml_get_rows(ctx, decoder.positional_embedding, pass->positions));  // [d, T·W]
    for (int i = 0; i < config_.n_text_layer; ++i) {
        const auto of_windows =
            [&](ggml_tensor* audio) {  // [d/n_head, 1500·capacity, n_head] → the windows of this pass
                const size_t window = audio->nb[1] * static_cast<size_t>(config_.n_audio_ctx);
                return ggml_view_4d(ctx, audio, audio->ne[0], config_.n_audio_ctx, audio->ne[2], s.n_windows,
                                    audio->nb[1], audio->nb[2], window,
                                    window * static_cast<size_t>(s.first));
            };
        ggml_tensor* keys = of_windows(s.memory->keys[static_cast<size_t>(i)]);
        ggml_tensor* values = of_windows(s.memory->values[static_cast<size_t>(i)]);
        const auto tap_scores = [&](ggml_tensor* query) {
            for (int head = 0; head < config_.n_text_head; ++head) {
                const std::string name = "cross_qk." + std::to_string(i) + "." + std::to_string(head);
                if (!graph.tapped(name)) continue;
                ggml_tensor* k = ggml_view_2d(ctx, keys, keys->ne[0], keys->ne[1], keys->nb[1],
                                              keys->nb[2] * static_cast<size_t>(head));
                ggml_tensor* q = ggml_view_2d(ctx, query, query->ne[0], query->ne[1], query->nb[1],
                                              query->nb[2] * static_cast<size_t>(head));
                const float scale = 1.0f / std::sqrt(static_cast<float>(query->ne[0]));
                graph.tap(name, ggml_scale(ctx, ggml_mul_mat(ctx, k, q), scale));  // [1500, T]
            }
        };
        x = decoder.blocks[static_cast<size_t>(i)](graph, x, context, i, keys, values, tap_scores);
        graph.tap("blocks." + std::to_string(i), x);
    }
    if (s.n_out) {
        pass->rows = graph.input(GGML_TYPE_I32, {int64_t{s.n_out} * s.n_windows});
        x = ggml_get_rows(ctx, x, pass->rows);
    }
    pass->logits = decoder.logits(graph, graph.tap("ln", decoder.ln(graph, x)));
    graph.tap("logits", pass->logits);
    graph.output(pass->logits);
    graph.finish();
    return pass;
}

DecoderPass& WhisperSession::decoder_pass(const DecoderShape& shape) {
    return decoder_pass_.of(
        shape, [&](GraphMemory graph_memory) { return build_decoder(shape, std::move(graph_memory)); });
}

void WhisperSession::check_window(const Encoded& encoded, int window) {
    if (window >= 0 && window < encoded.batch()) return;
    throw OptionError("window: expected 0.." + std::to_string(encoded.batch() - 1) + ", found " +
                      std::to_string(window));
}

void WhisperSession::check_tokens(const std::vector<int32_t>& tokens) const {
    if (tokens.empty() || tokens.size() > static_cast<size_t>(config_.n_text_ctx)) {
        throw OptionError("tokens: expected 1.." + std::to_string(config_.n_text_ctx) + ", found " +
                          std::to_string(tokens.size()));
    }
    for (int32_t token : tokens) {
        if (token >= 0 && token < config_.n_vocab) continue;
        throw OptionError("tokens: expected ids below " + std::to_string(config_.n_vocab) + ", found " +
                          std::to_string(token));
    }
}

/// The decoder over a run of windows, step by step.
class WhisperSession::Steps final : public StepModel {
   public:
    Steps(WhisperSession& session, const AudioMemory& memory, int first,
          const std::vector<std::vector<int32_t>>& prompts, int n_rows, int max_tokens)
        : session_(session), n_rows_(n_rows) {
        for (const auto& prompt : prompts) lengths_.push_back(static_cast<int>(prompt.size()));
        const int longest = *std::max_element(lengths_.begin(), lengths_.end());
        const int n_windows = static_cast<int>(prompts.size());
        cache_ = &session.cache_for(n_windows,
                                    longest + n_rows * std::min(max_tokens, session.config_.n_text_ctx));
        shape_ = {&memory, first, n_windows, longest, 0, 2};
        read_prompts(prompts);
    }

    int64_t n_vocab() const override { return session_.config_.n_vocab; }
    int room(int window) const override {
        return session_.config_.n_text_ctx - lengths_[static_cast<size_t>(window)] + 1;
    }
    float* prompt_logits(int window) override { return row(2 * window + 1); }
    float* step_logits(int window, int index) override { return row(window * n_rows_ + index); }
    float no_speech_prob(int window) const { return no_speech_[static_cast<size_t>(window)]; }

    void step(const std::vector<std::vector<Branch>>& branches) override {
        cache_->branch(branches, n_rows_);
        shape_.n_tokens = n_rows_;
        shape_.n_out = 0;
        std::vector<int32_t> tokens, positions, lengths;
        for (size_t w = 0; w < branches.size(); ++w) {
            for (int r = 0; r < n_rows_; ++r) {
                const bool live = r < static_cast<int>(branches[w].size());
                tokens.push_back(live ? branches[w][static_cast<size_t>(r)].token : 0);
                positions.push_back(std::min(lengths_[w] + n_sampled_, session_.config_.n_text_ctx - 1));
            }
            lengths.push_back(branches[w].empty() ? 0 : session_.config_.n_audio_ctx);
        }
        ++n_sampled_;
        run(tokens, positions, lengths, {});
    }

   private:
    void read_prompts(const std::vector<std::vector<int32_t>>& prompts) {
        cache_->reset(static_cast<int>(prompts.size()));
        cache_->read(0, lengths_, shape_.n_tokens);
        std::vector<int32_t> tokens, positions, rows;
        for (size_t w = 0; w < prompts.size(); ++w) {
            const auto& prompt = prompts[w];
            const int begin = static_cast<int>(tokens.size());
            for (int t = 0; t < shape_.n_tokens; ++t) {
                tokens.push_back(t < lengths_[w] ? prompt[static_cast<size_t>(t)] : 0);
                positions.push_back(t);
            }
            // No-speech is judged right after <|startoftranscript|>.
            const auto start = std::find(prompt.begin(), prompt.end(), session_.config_.start_of_transcript);
            rows.push_back(begin + static_cast<int>(start == prompt.end()
                                                        ? prompt.size() - 1
                                                        : static_cast<size_t>(start - prompt.begin())));
            rows.push_back(begin + lengths_[w] - 1);
        }
        run(tokens, positions, std::vector<int32_t>(prompts.size(), session_.config_.n_audio_ctx), rows);
        for (size_t w = 0; w < prompts.size(); ++w) {
            const float* logits = row(2 * static_cast<int>(w));
            no_speech_.push_back(
                std::exp(logits[session_.config_.no_speech] - kernels::log_sum_exp(logits, n_vocab())));
        }
    }

    void run(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
             const std::vector<int32_t>& lengths, const std::vector<int32_t>& rows) {
        shape_.n_kv = cache_->n_kv();
        DecoderPass& pass = session_.decoder_pass(shape_);
        write(pass.tokens, tokens.data());
        write(pass.positions, positions.data());
        write(pass.cells, cache_->cells().data());
        write(pass.mask, cache_->mask().data());
        if (pass.lengths->buffer) write(pass.lengths, lengths.data());  // ggml's attention does not read them
        if (pass.rows) write(pass.rows, rows.data());
        pass.graph.run();
        logits_ = on_host(pass.logits, copied_);
    }

    float* row(int index) { return logits_ + index * n_vocab(); }

    WhisperSession& session_;
    KvCache* cache_ = nullptr;
    DecoderShape shape_{};
    int n_rows_;
    int n_sampled_ = 0;
    std::vector<int> lengths_;  // of the prompts
    std::vector<float> no_speech_;
    std::vector<float> copied_;
    float* logits_ = nullptr;
};

std::vector<Decoded> WhisperSession::decode(Encoded& encoded, const std::vector<int>& windows,
                                            const std::vector<std::vector<int32_t>>& prompts,
                                            const DecodeOptions& options, const OnToken& on_token) {
    options.check();
    if (windows.size() != prompts.size()) {
        throw OptionError("prompts: expected " + std::to_string(windows.size()) + ", one per window, found " +
                          std::to_string(prompts.size()));
    }
    for (int window : windows) check_window(encoded, window);
    for (const auto& prompt : prompts) check_tokens(prompt);
    for (int32_t token : options.suppress) {
        if (token < 0 || token >= config_.n_vocab) {
            throw OptionError("suppress: expected ids below " + std::to_string(config_.n_vocab) + ", found " +
                              std::to_string(token));
        }
    }
    const TimestampTokens ids{config_.n_vocab, config_.end_of_text, config_.no_timestamps,
                              config_.timestamp_begin};
    const LogitFilter filter = whisper_filter(ids, config_.begin_suppress, options);

    std::vector<Decoded> results;
    for (size_t begin = 0, end; begin < windows.size(); begin = end) {
        // Neighbours in the memory decode together.
        for (end = begin + 1; end < windows.size() && windows[end] == windows[end - 1] + 1; ++end) {
        }
        const std::vector<std::vector<int32_t>> run(prompts.begin() + static_cast<std::ptrdiff_t>(begin),
                                                    prompts.begin() + static_cast<std::ptrdiff_t>(end));
        const OnToken on_token_of_run = [&](int window, int32_t token, float logprob) {
            return on_token(static_cast<int>(begin) + window, token, logprob);
        };
        Steps steps(*this, *own(encoded).memory, windows[begin], run, options.n_rows(), options.max_tokens);
        std::vector<Decoded> decoded = search(steps, static_cast<int>(run.size()), {config_.end_of_text},
                                              filter, options, on_token ? on_token_of_run : OnToken{});
        for (size_t i = 0; i < decoded.size(); ++i) {
            decoded[i].no_speech_prob = steps.no_speech_prob(static_cast<int>(i));
            results.push_back(std::move(decoded[i]));
        }
    }
    return results;
}

Matrix WhisperSession::detect_language(Encoded& encoded) {
    if (config_.n_languages == 0)
        throw UnsupportedModelError("language detection: this model knows English only");
    Matrix result{encoded.batch(), config_.n_languages, {}};
    const std::vector<std::vector<int32_t>> prompts(static_cast<size_t>(encoded.batch()),
                                                    {config_.start_of_transcript});
    Steps steps(*this, *own(encoded).memory, 0, prompts, 1, 1);
    for (int w = 0; w < encoded.batch(); ++w) {
        const float* logits = steps.prompt_logits(w) + config_.start_of_transcript + 1;
        const float normalizer = kernels::log_sum_exp(logits, config_.n_languages);
        for (int i = 0; i < config_.n_languages; ++i)
            result.values.push_back(std::exp(logits[i] - normalizer));
    }
    return result;
}

// --- alignment and inspection
// ----------------------------------------------------------------------------------

const Graph& WhisperSession::read_tokens(WhisperEncoded& encoded, int window,
                                         const std::vector<int32_t>& tokens, std::vector<std::string> taps) {
    check_window(encoded, window);
    check_tokens(tokens);
    const int n_tokens = static_cast<int>(tokens.size());
    KvCache& cache = cache_for(1, n_tokens);
    cache.reset(1);
    cache.read(0, {n_tokens}, n_tokens);
    DecoderPass& pass =
        decoder_pass({encoded.memory.get(), window, 1, n_tokens, cache.n_kv(), 0, std::move(taps)});
    std::vector<int32_t> positions;
    for (int t = 0; t < n_tokens; ++t) positions.push_back(t);
    const int32_t length = config_.n_audio_ctx;
    write(pass.tokens, tokens.data());
    write(pass.positions, positions.data());
    write(pass.cells, cache.cells().data());
    write(pass.mask, cache.mask().data());
    if (pass.lengths->buffer) write(pass.lengths, &length);
    pass.graph.run();
    return pass.graph;
}

std::map<std::string, Matrix> WhisperSession::decode_taps(Encoded& encoded, int window,
                                                          const std::vector<int32_t>& tokens,
                                                          const std::vector<std::string>& names) {
    return collect_taps(read_tokens(own(encoded), window, tokens, names), names);
}

TokenAlignment WhisperSession::align_window(WhisperEncoded& encoded, int window,
                                            const std::vector<int32_t>& text,
                                            const std::vector<int32_t>& prefix, int n_frames) {
    const int n_columns = n_frames / 2;
    if (n_columns < 1 || n_columns > config_.n_audio_ctx) {
        throw OptionError("n_frames: expected 2.." + std::to_string(config_.n_mel_frames()) + ", found " +
                          std::to_string(n_frames));
    }
    std::vector<int32_t> tokens = prefix;
    tokens.push_back(config_.no_timestamps);
    tokens.insert(tokens.end(), text.begin(), text.end());
    tokens.push_back(config_.end_of_text);
    std::vector<std::string> taps = {"logits"};
    for (const auto& [layer, head] : config_.alignment_heads)
        taps.push_back("cross_qk." + std::to_string(layer) + "." + std::to_string(head));
    const Graph& graph = read_tokens(encoded, window, tokens, taps);
    // Not copied where the host sees them: the logits of a long text take 50 MB.
    std::map<std::string, std::vector<float>> copies;
    const auto values = [&](const std::string& name) { return on_host(graph.taps().at(name), copies[name]); };

    TokenAlignment alignment;
    const float* all_logits = values("logits");
    for (size_t i = 0; i < text.size(); ++i) {  // row p of the logits predicts token p + 1
        const float* logits = all_logits + (prefix.size() + i) * static_cast<size_t>(config_.n_vocab);
        alignment.probabilities.push_back(
            std::exp(logits[text[i]] - kernels::log_sum_exp(logits, config_.end_of_text)));
    }
    std::vector<const float*> scores;
    for (size_t i = 1; i < taps.size(); ++i) scores.push_back(values(taps[i]));
    const auto n_tokens = static_cast<int64_t>(tokens.size());
    const std::vector<float> weights = attention_weights(scores, n_tokens, n_columns, config_.n_audio_ctx);
    // The row of a token is where the next one is predicted: from <|notimestamps|> to the last text token.
    const auto first_row = static_cast<int64_t>(prefix.size());
    for (int32_t column : dtw_starts(&weights[static_cast<size_t>(first_row * n_columns)],
                                     n_tokens - first_row - 1, n_columns)) {
        alignment.times.push_back(static_cast<float>(column) * 0.02f);
    }
    return alignment;
}

std::vector<TokenAlignment> WhisperSession::align(Encoded& encoded, const std::vector<int>& windows,
                                                  const std::vector<std::vector<int32_t>>& text,
                                                  const std::vector<std::vector<int32_t>>& prefix,
                                                  const std::vector<int>& n_frames) {
    if (text.size() != windows.size() || prefix.size() != windows.size() ||
        n_frames.size() != windows.size()) {
        throw OptionError("align: expected tokens, prefixes and lengths for " +
                          std::to_string(windows.size()) + " windows");
    }
    if (config_.alignment_heads.empty())
        throw UnsupportedModelError("word times: this model names no alignment heads");
    std::vector<TokenAlignment> alignments;
    for (size_t i = 0; i < windows.size(); ++i) {
        alignments.push_back(align_window(own(encoded), windows[i], text[i], prefix[i], n_frames[i]));
    }
    return alignments;
}

}  // namespace

std::unique_ptr<Session> WhisperModel::session() const {
    auto self = std::static_pointer_cast<const WhisperModel>(shared_from_this());
    return std::make_unique<WhisperSession>(std::move(self), store_->device());
}

}  // namespace rustasr
