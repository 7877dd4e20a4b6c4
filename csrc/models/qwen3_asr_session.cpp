// The session of Qwen3-ASR: reading prompts and decoding. Which graphs are kept, what lies on the device.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "core/error.h"
#include "core/last_pass.h"
#include "kernels/attention.h"
#include "models/qwen3_asr_audio.h"

namespace rustasr {
namespace {

/// Tokens that a cache has room for at least, before it has to grow.
constexpr int kFirstTokens = 256;

using Ids = std::vector<int32_t>;
/// Vectors of one clip, [d_text] each: what stands in place of <|audio_pad|>.
using Clip = std::shared_ptr<const Matrix>;

/// A few MB at most for ten minutes: kept on the host, so that it depends neither on a graph nor on a
/// session.
class Qwen3AsrEncoded : public Encoded {
   public:
    explicit Qwen3AsrEncoded(std::vector<Clip> clips) : clips(std::move(clips)) {}
    int batch() const override { return static_cast<int>(clips.size()); }
    std::vector<int> lengths() const override {
        std::vector<int> lengths;
        for (const Clip& clip : clips) lengths.push_back(static_cast<int>(clip->rows));
        return lengths;
    }
    const std::vector<Clip> clips;
};

/// Which decoder graph: over windows [first, first + n_windows) of the cache.
struct DecoderShape {
    int first, n_windows, n_tokens, n_kv;
    int n_audio;  // rows that are audio vectors
    int n_out;    // rows of logits
    bool masked;  // else a row sees what stands before it
    std::vector<std::string> taps = {};

    auto key() const { return std::tie(first, n_windows, n_tokens, n_kv, n_audio, n_out, masked, taps); }
    bool operator==(const DecoderShape& other) const { return key() == other.key(); }
    int n_rows() const { return n_windows * n_tokens; }
};

struct DecoderPass {
    DecoderPass(Backend& backend, int n_layer, kernels::Precision precision, std::vector<std::string> taps,
                GraphMemory memory)
        : graph(backend, 256 + 64 * static_cast<size_t>(n_layer), precision, std::move(taps),
                std::move(memory)) {}
    Graph graph;
    ggml_tensor* tokens = nullptr;    // I32 [T·W]
    Rotation rotation;                // of T·W tokens
    ggml_tensor* cells = nullptr;     // I64 [T, 1, W]
    ggml_tensor* mask = nullptr;      // F16 [n_kv, T, 1, W], or null
    ggml_tensor* offsets = nullptr;   // I32 [W], or null
    ggml_tensor* audio = nullptr;     // [d_text, n_audio], or null
    ggml_tensor* audio_at = nullptr;  // I64 [n_audio]: their rows
    ggml_tensor* out_rows = nullptr;  // I32 [n_out], or null when every row counts
    ggml_tensor* logits = nullptr;    // [n_vocab or n_classes, n_out], or null
};

/// What a window of the cache has read: as much of a new prompt as is the same need not be read again.
struct Held {
    std::weak_ptr<const Matrix> clip;
    Ids tokens;
};

struct Prompt {
    Clip clip;
    Ids tokens;
    std::vector<int> wanted;  // positions whose logits are asked for, ascending
};

class Qwen3AsrSession : public Session {
   public:
    Qwen3AsrSession(std::shared_ptr<const Qwen3AsrModel> model, ggml_backend_dev_t device)
        : Session(device, model->threads(), model->frontend),
          model_(std::move(model)),
          config_(model_->config),
          types_(model_->language_model.output.type()),
          audio_(backend_, *model_, types_.precision),
          knows_causal_(attention_is_ours(backend_, config_.text.d_head)) {}

    std::shared_ptr<Encoded> encode(const std::vector<MatrixView>& features) override {
        return std::make_shared<Qwen3AsrEncoded>(audio_.encode(features));
    }
    std::map<std::string, Matrix> encode_taps(const std::vector<MatrixView>& features,
                                              const std::vector<std::string>& names) override {
        return audio_.taps(features, names);
    }
    std::vector<Decoded> decode(Encoded& encoded, const std::vector<int>& windows,
                                const std::vector<Ids>& prompts, const DecodeOptions& options,
                                const OnToken& on_token) override;
    std::vector<Matrix> classify(Encoded& encoded, const std::vector<int>& windows,
                                 const std::vector<Ids>& prompts,
                                 const std::vector<std::vector<int>>& positions) override;
    std::map<std::string, Matrix> decode_taps(Encoded& encoded, int window, const Ids& tokens,
                                              const std::vector<std::string>& names) override;

   private:
    class Steps;
    using TakeRow = std::function<void(size_t prompt, size_t wanted, const float* logits)>;

    void prepare_cache(int n_windows, int n_cells);
    void grow_cache();
    std::unique_ptr<DecoderPass> build_decoder(const DecoderShape& shape, GraphMemory memory);
    DecoderPass& decoder_pass(const DecoderShape& shape);
    const float* run_decoder(DecoderPass& pass, const Ids& tokens, const Ids& positions);

    std::vector<Prompt> check_prompts(Encoded& encoded, const std::vector<int>& windows,
                                      const std::vector<Ids>& prompts) const;
    void read_prompts(const std::vector<Prompt>& prompts, const TakeRow& take);
    void read_run(const std::vector<Prompt>& prompts, int first, int n_windows, const TakeRow& take);
    int rewind_to_common(const Prompt& prompt, int window);

    static Qwen3AsrEncoded& own(Encoded& encoded) { return dynamic_cast<Qwen3AsrEncoded&>(encoded); }

    std::shared_ptr<const Qwen3AsrModel> model_;
    const Qwen3AsrConfig& config_;
    AttentionTypes types_;
    Qwen3AsrAudioEncoder audio_;
    bool knows_causal_;  // attention, without a mask
    std::unique_ptr<KvCache> cache_;
    std::vector<Held> held_;  // per window of the cache
    LastPass<DecoderShape, DecoderPass> pass_;
    std::vector<float> logits_;  // of the last pass, where the device's memory is not the host's
};

/// n_windows with room for n_cells each; what they hold of earlier prompts stays where it can.
void Qwen3AsrSession::prepare_cache(int n_windows, int n_cells) {
    if (!cache_ || cache_->n_windows() < n_windows || cache_->n_cells() < n_cells) {
        pass_.clear();
        held_.clear();
        cache_.reset();
        cache_ = std::make_unique<KvCache>(backend_, config_.n_text_layer, config_.text.d_head,
                                           config_.text.n_kv_head, n_cells, n_windows, types_.cache);
    }
    cache_->use(n_windows);
    held_.resize(static_cast<size_t>(n_windows));
}

/// In the middle of a text: an eighth more room. Two caches live while one is copied.
void Qwen3AsrSession::grow_cache() {
    pass_.clear();
    cache_ = std::make_unique<KvCache>(backend_, *cache_,
                                       cache_->n_cells() + std::max(kFirstTokens, cache_->n_cells() / 8));
}

std::unique_ptr<DecoderPass> Qwen3AsrSession::build_decoder(const DecoderShape& s, GraphMemory memory) {
    auto pass = std::make_unique<DecoderPass>(backend_, config_.n_text_layer, types_.precision, s.taps,
                                              std::move(memory));
    Graph& graph = pass->graph;
    ggml_context* ctx = graph.ctx();
    const LanguageModel& lm = model_->language_model;
    const int64_t rows = s.n_rows();

    pass->tokens = graph.input(GGML_TYPE_I32, {rows});
    pass->rotation = Rotation(graph, config_.text, rows);
    pass->cells = graph.input(GGML_TYPE_I64, {s.n_tokens, 1, s.n_windows});
    if (s.masked) {
        pass->mask = graph.input(GGML_TYPE_F16, {s.n_kv, s.n_tokens, 1, s.n_windows});
    } else {
        pass->offsets = graph.input(GGML_TYPE_I32, {s.n_windows});
    }
    const CausalContext context{s.n_tokens,  s.n_windows,    s.n_kv,     s.first,      cache_.get(),
                                pass->cells, pass->rotation, pass->mask, pass->offsets};

    ggml_tensor* x = lm.token_embedding(graph, pass->tokens);  // [d, rows]
    if (s.n_audio) {
        pass->audio = graph.input(GGML_TYPE_F32, {config_.text.d, s.n_audio});
        pass->audio_at = graph.input(GGML_TYPE_I64, {s.n_audio});
        x = ggml_set_rows(ctx, x, pass->audio, pass->audio_at);
    }
    graph.tap("embeddings", x);
    for (int i = 0; i < config_.n_text_layer; ++i) {
        const CausalBlock& block = lm.blocks[static_cast<size_t>(i)];
        x = block.attend(graph, x, context, i);
        if (i == config_.n_text_layer - 1) {
            graph.effect(x);
            if (s.n_out == 0) break;  // keys and values are stored: nothing else is wanted
            if (s.n_out < rows) {
                pass->out_rows = graph.input(GGML_TYPE_I32, {s.n_out});
                x = ggml_get_rows(ctx, x, pass->out_rows);
            }
        }
        x = graph.tap("blocks." + std::to_string(i), block.feed_forward(graph, x));
    }
    if (s.n_out) {
        pass->logits = graph.tap("logits", lm.output(graph, lm.norm(graph, x)));
        graph.output(pass->logits);
    }
    graph.finish();
    return pass;
}

DecoderPass& Qwen3AsrSession::decoder_pass(const DecoderShape& shape) {
    return pass_.of(shape, [&](GraphMemory memory) { return build_decoder(shape, std::move(memory)); });
}

/// Runs a pass whose book-keeping the cache has done; returns the logits, which live until the next pass.
const float* Qwen3AsrSession::run_decoder(DecoderPass& pass, const Ids& tokens, const Ids& positions) {
    write(pass.tokens, tokens.data());
    pass.rotation.set(positions);
    write(pass.cells, cache_->cells().data());
    if (pass.mask) write(pass.mask, cache_->mask().data());
    if (pass.offsets) write(pass.offsets, cache_->offsets().data());
    pass.graph.run();
    return pass.logits ? on_host(pass.logits, logits_) : nullptr;
}

std::vector<Prompt> Qwen3AsrSession::check_prompts(Encoded& encoded, const std::vector<int>& windows,
                                                   const std::vector<Ids>& prompts) const {
    if (windows.size() != prompts.size()) {
        throw OptionError("prompts: expected " + std::to_string(windows.size()) + ", one per window, found " +
                          std::to_string(prompts.size()));
    }
    std::vector<Prompt> checked;
    for (size_t i = 0; i < windows.size(); ++i) {
        if (windows[i] < 0 || windows[i] >= encoded.batch()) {
            throw OptionError("window: expected 0.." + std::to_string(encoded.batch() - 1) + ", found " +
                              std::to_string(windows[i]));
        }
        const Ids& tokens = prompts[i];
        if (tokens.empty() || tokens.size() > static_cast<size_t>(config_.n_ctx)) {
            throw OptionError("prompts: expected 1.." + std::to_string(config_.n_ctx) + " tokens, found " +
                              std::to_string(tokens.size()));
        }
        for (int32_t token : tokens) {
            if (token >= 0 && token < config_.n_vocab) continue;
            throw OptionError("prompts: expected ids below " + std::to_string(config_.n_vocab) + ", found " +
                              std::to_string(token));
        }
        const Clip& clip = own(encoded).clips[static_cast<size_t>(windows[i])];
        const auto n_pads = std::count(tokens.begin(), tokens.end(), config_.audio_pad);
        if (n_pads != clip->rows) {
            throw OptionError("prompts: expected the audio token " + std::to_string(config_.audio_pad) + " " +
                              std::to_string(clip->rows) + " times, once per vector of the clip, found " +
                              std::to_string(n_pads));
        }
        checked.push_back({clip, tokens, {}});
    }
    return checked;
}

/// Keeps what `window` has read of this prompt already, but nothing from the first wanted position on;
/// returns how many tokens that is.
int Qwen3AsrSession::rewind_to_common(const Prompt& prompt, int window) {
    Held& held = held_[static_cast<size_t>(window)];
    const bool same_clip = held.clip.lock() == prompt.clip;
    const size_t most = std::min(held.tokens.size(), static_cast<size_t>(prompt.wanted.front()));
    size_t n = 0;
    while (n < most && held.tokens[n] == prompt.tokens[n] &&
           (same_clip || prompt.tokens[n] != config_.audio_pad)) {
        ++n;
    }
    held = {};
    cache_->rewind(window, static_cast<int>(n));
    return static_cast<int>(n);
}

/// Reads prompt i into window i of the cache, which must be large enough, and gives the logits of the wanted
/// positions to `take`.
void Qwen3AsrSession::read_prompts(const std::vector<Prompt>& prompts, const TakeRow& take) {
    // One prompt keeps a CPU busy, and each reads only its own length then.
    const auto n_windows = static_cast<int>(prompts.size());
    const int at_once = backend_.on_cpu() ? 1 : n_windows;
    for (int first = 0; first < n_windows; first += at_once)
        read_run(prompts, first, std::min(at_once, n_windows - first), take);
}

void Qwen3AsrSession::read_run(const std::vector<Prompt>& prompts, int first, int n_windows,
                               const TakeRow& take) {
    // Rows of a pass: enough to keep the device busy; the mask grows with them.
    const int most_rows = backend_.on_cpu() ? 1024 : 8192, most = std::max(64, most_rows / n_windows);
    struct Reader {
        const Prompt* prompt;
        int at;             // tokens that have been read
        int64_t audio_row;  // vectors that have been read
        size_t wanted;      // positions that have been given
        int left() const { return static_cast<int>(prompt->tokens.size()) - at; }
    };
    std::vector<Reader> readers;
    for (int w = first; w < first + n_windows; ++w) {
        const Prompt& prompt = prompts[static_cast<size_t>(w)];
        const int at = rewind_to_common(prompt, w);
        readers.push_back({&prompt, at,
                           std::count(prompt.tokens.begin(), prompt.tokens.begin() + at, config_.audio_pad),
                           0});
    }
    const auto longest = [&] {
        return std::max_element(readers.begin(), readers.end(),
                                [](const Reader& a, const Reader& b) { return a.left() < b.left(); })
            ->left();
    };
    for (int n_tokens; (n_tokens = std::min(most, longest())) > 0;) {
        std::vector<int> counts;
        Ids tokens, positions, out_rows;
        std::vector<int64_t> audio_at;
        std::vector<float> audio;
        std::vector<std::pair<size_t, size_t>> outputs;  // prompt, which of its wanted positions
        for (size_t i = 0; i < readers.size(); ++i) {
            Reader& reader = readers[i];
            const Prompt& prompt = *reader.prompt;
            counts.push_back(std::min(n_tokens, reader.left()));
            for (int t = 0; t < n_tokens; ++t) {
                const auto row = static_cast<int32_t>(tokens.size());
                const int position = reader.at + t;
                const int32_t token = t < counts[i] ? prompt.tokens[static_cast<size_t>(position)] : 0;
                tokens.push_back(token);
                positions.push_back(position);
                if (t >= counts[i]) continue;
                if (token == config_.audio_pad) {
                    const float* vector =
                        &prompt.clip->values[static_cast<size_t>(reader.audio_row++ * prompt.clip->columns)];
                    audio.insert(audio.end(), vector, vector + prompt.clip->columns);
                    audio_at.push_back(row);
                }
                if (reader.wanted < prompt.wanted.size() && prompt.wanted[reader.wanted] == position) {
                    out_rows.push_back(row);
                    outputs.emplace_back(static_cast<size_t>(first) + i, reader.wanted++);
                }
            }
            reader.at += counts[i];
        }
        cache_->read(first, counts, n_tokens);
        const DecoderShape shape{first,
                                 n_windows,
                                 n_tokens,
                                 cache_->n_kv(),
                                 static_cast<int>(audio_at.size()),
                                 static_cast<int>(out_rows.size()),
                                 !knows_causal_};
        DecoderPass& pass = decoder_pass(shape);
        if (pass.audio) {
            write(pass.audio, audio.data());
            write(pass.audio_at, audio_at.data());
        }
        if (pass.out_rows) write(pass.out_rows, out_rows.data());
        const float* logits = run_decoder(pass, tokens, positions);
        for (size_t i = 0; i < outputs.size(); ++i)
            take(outputs[i].first, outputs[i].second, logits + static_cast<int64_t>(i) * pass.logits->ne[0]);
    }
    for (int w = first; w < first + n_windows; ++w) {
        const Prompt& prompt = prompts[static_cast<size_t>(w)];
        held_[static_cast<size_t>(w)] = {prompt.clip, prompt.tokens};
    }
}

/// The decoder over the windows of a call, step by step.
class Qwen3AsrSession::Steps final : public StepModel {
   public:
    Steps(Qwen3AsrSession& session, std::vector<Prompt> prompts, int n_rows, int max_tokens)
        : session_(session), n_rows_(n_rows) {
        int longest = 0;
        for (Prompt& prompt : prompts) {
            lengths_.push_back(static_cast<int>(prompt.tokens.size()));
            longest = std::max(longest, lengths_.back());
            prompt.wanted = {lengths_.back() - 1};
        }
        const int n_windows = static_cast<int>(prompts.size());
        const int n_sampled = std::min(max_tokens, session.config_.n_ctx - longest + 1);
        // Fast speech is four tokens a second, and a second is 13 vectors.
        const int first = std::min(n_sampled, std::max(kFirstTokens, longest / 3));
        session.prepare_cache(n_windows, longest + n_rows * first);
        prompt_logits_.resize(prompts.size() * static_cast<size_t>(n_vocab()));
        session.read_prompts(prompts, [&](size_t w, size_t, const float* logits) {
            std::copy_n(logits, n_vocab(), &prompt_logits_[w * static_cast<size_t>(n_vocab())]);
        });
    }

    int64_t n_vocab() const override { return session_.config_.n_vocab; }
    int room(int window) const override {
        return session_.config_.n_ctx - lengths_[static_cast<size_t>(window)] + 1;
    }
    float* prompt_logits(int window) override { return &prompt_logits_[window * n_vocab()]; }
    float* step_logits(int window, int index) override {
        return const_cast<float*>(logits_) + (window * n_rows_ + index) * n_vocab();
    }

    void step(const std::vector<std::vector<Branch>>& branches) override {
        if (!session_.cache_->has_room(n_rows_)) session_.grow_cache();
        KvCache& cache = *session_.cache_;
        cache.branch(branches, n_rows_);
        Ids tokens, positions;
        for (size_t w = 0; w < branches.size(); ++w) {
            for (int r = 0; r < n_rows_; ++r) {
                const bool live = r < static_cast<int>(branches[w].size());
                tokens.push_back(live ? branches[w][static_cast<size_t>(r)].token : 0);
                positions.push_back(std::min(lengths_[w] + n_sampled_, session_.config_.n_ctx - 1));
            }
        }
        ++n_sampled_;
        const int n_windows = static_cast<int>(branches.size());
        logits_ = session_.run_decoder(
            session_.decoder_pass({0, n_windows, n_rows_, cache.n_kv(), 0, n_windows * n_rows_,
                                   n_rows_ > 1 || !session_.knows_causal_}),
            tokens, positions);
    }

   private:
    Qwen3AsrSession& session_;
    int n_rows_;
    int n_sampled_ = 0;
    std::vector<int> lengths_;  // of the prompts
    std::vector<float> prompt_logits_;
    const float* logits_ = nullptr;
};

std::vector<Decoded> Qwen3AsrSession::decode(Encoded& encoded, const std::vector<int>& windows,
                                             const std::vector<Ids>& prompts, const DecodeOptions& options,
                                             const OnToken& on_token) {
    if (config_.n_classes) throw UnsupportedModelError("this is a forced aligner: it does not transcribe");
    options.check();
    std::vector<Prompt> checked = check_prompts(encoded, windows, prompts);
    if (checked.empty()) return {};
    for (int32_t token : options.suppress) {
        if (token >= 0 && token < config_.n_vocab) continue;
        throw OptionError("suppress: expected ids below " + std::to_string(config_.n_vocab) + ", found " +
                          std::to_string(token));
    }
    const LogitFilter filter = [&](const Ids&, float* logits) {
        for (int32_t token : options.suppress) logits[token] = -INFINITY;
    };
    Steps steps(*this, std::move(checked), options.n_rows(), options.max_tokens);
    return search(steps, static_cast<int>(windows.size()), config_.stop_tokens, filter, options, on_token);
}

std::vector<Matrix> Qwen3AsrSession::classify(Encoded& encoded, const std::vector<int>& windows,
                                              const std::vector<Ids>& prompts,
                                              const std::vector<std::vector<int>>& positions) {
    if (!config_.n_classes) throw UnsupportedModelError("this model has no classes: it is no forced aligner");
    std::vector<Prompt> checked = check_prompts(encoded, windows, prompts);
    if (positions.size() != prompts.size()) {
        throw OptionError("positions: expected " + std::to_string(prompts.size()) +
                          ", one list per prompt, found " + std::to_string(positions.size()));
    }
    std::vector<Matrix> results;
    for (size_t i = 0; i < checked.size(); ++i) {
        const auto n_tokens = static_cast<int>(checked[i].tokens.size());
        int least = 0;
        for (int position : positions[i]) {
            if (position < least || position >= n_tokens) {
                throw OptionError("positions: expected ascending places below " + std::to_string(n_tokens) +
                                  ", found " + std::to_string(position));
            }
            least = position + 1;
        }
        results.push_back({static_cast<int64_t>(positions[i].size()), config_.n_classes, {}});
        checked[i].wanted = positions[i];
        if (positions[i].empty()) continue;
        // One at a time: their logits are needed once, and a cache for one is enough.
        const std::vector<Prompt> one = {checked[i]};
        prepare_cache(1, n_tokens);
        read_prompts(one, [&](size_t, size_t, const float* logits) {
            results[i].values.insert(results[i].values.end(), logits, logits + config_.n_classes);
        });
    }
    return results;
}

std::map<std::string, Matrix> Qwen3AsrSession::decode_taps(Encoded& encoded, int window, const Ids& tokens,
                                                           const std::vector<std::string>& names) {
    const Prompt prompt = check_prompts(encoded, {window}, {tokens})[0];
    const int n_tokens = static_cast<int>(tokens.size());
    prepare_cache(1, n_tokens);
    cache_->reset(1);
    held_.assign(1, {});
    cache_->read(0, {n_tokens}, n_tokens);
    const auto n_audio = static_cast<int>(prompt.clip->rows);
    DecoderPass& pass =
        decoder_pass({0, 1, n_tokens, cache_->n_kv(), n_audio, n_tokens, !knows_causal_, names});
    Ids positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<int64_t> audio_at;
    for (size_t t = 0; t < tokens.size(); ++t) {
        if (tokens[t] == config_.audio_pad) audio_at.push_back(static_cast<int64_t>(t));
    }
    if (pass.audio) {
        write(pass.audio, prompt.clip->values.data());
        write(pass.audio_at, audio_at.data());
    }
    run_decoder(pass, tokens, positions);
    return collect_taps(pass.graph, names);
}

}  // namespace

std::unique_ptr<Session> Qwen3AsrModel::session() const {
    auto self = std::static_pointer_cast<const Qwen3AsrModel>(shared_from_this());
    return std::make_unique<Qwen3AsrSession>(std::move(self), store_->device());
}

}  // namespace rustasr
