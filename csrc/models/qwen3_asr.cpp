// Qwen3-ASR and Qwen3-ForcedAligner: an audio encoder whose vectors stand in a prompt of a causal language
// model. Follows transformers 5.23, models/qwen3_asr/modeling_qwen3_asr.py and models/qwen3.
//
//   log-mel [n_mels, T] of a clip, cut into chunks of 100 frames; the last one filled up with zeros
//     per chunk: conv1, conv2, conv3  k3×3 s2, GELU   [480, 16, 13]
//                conv_out of [16·480, 13]             [d, 13]
//                + positional_embedding               [d, 13]   (positions start again in every chunk)
//     the first f(f(f(n))) vectors of a chunk of n frames count, f(n) = (n − 1)/2 + 1
//   windows of 8 chunks                               [d, 104, windows]
//     n_layer × EncoderBlock inside each window, ln_post
//     projector: Linear, GELU, Linear                 [d_text, T/8]
//
//   tokens [T]: token_embedding, the audio vectors in place of <|audio_pad|>   [d_text, T]
//     n_layer × CausalBlock, norm
//     · token_embeddingᵀ                              [n_vocab, rows wanted]
//     or, of the aligner, · headᵀ                     [n_classes, rows wanted]

#include "models/qwen3_asr.h"

#include <algorithm>

#include "core/error.h"

namespace rustasr {

int Qwen3AsrConfig::Audio::positions(int n_frames) {
    for (int i = 0; i < 3 && n_frames > 0; ++i) n_frames = static_cast<int>(halved(n_frames));
    return n_frames;
}

Qwen3AsrConfig Qwen3AsrConfig::read(const GgufFile& file) {
    const auto size = [&](const char* name, uint32_t max) {
        return static_cast<int>(file.u32(std::string("qwen3_asr.") + name, 1, max));
    };
    const auto multiple = [&](const char* name, int64_t value, const char* of, int64_t unit) {
        if (value % unit == 0) return;
        throw ModelFileError(file.path() + ": key qwen3_asr." + name + ": expected a multiple of " + of +
                             " (" + std::to_string(unit) + "), found " + std::to_string(value));
    };
    const auto positive = [&](const char* name) {
        const float value = file.f32(std::string("qwen3_asr.") + name);
        if (value > 0) return value;
        throw ModelFileError(file.path() + ": key qwen3_asr." + name + ": expected a number above 0, found " +
                             std::to_string(value));
    };
    Qwen3AsrConfig c{};
    c.audio.n_mels = static_cast<int>(file.u32("frontend.n_mels", 1, 512));
    c.audio.n_layer = size("audio.n_layer", 256);
    c.audio.d_model = size("audio.d_model", 8192);
    c.audio.n_head = size("audio.n_head", 256);
    c.audio.d_ff = size("audio.d_ff", 1 << 16);
    c.audio.conv_channels = size("audio.conv_channels", 4096);
    c.audio.chunk_frames = size("audio.chunk_frames", 4096);
    c.audio.window_frames = size("audio.window_frames", 1 << 16);
    multiple("audio.d_model", c.audio.d_model, "qwen3_asr.audio.n_head", c.audio.n_head);
    multiple("audio.window_frames", c.audio.window_frames, "qwen3_asr.audio.chunk_frames",
             c.audio.chunk_frames);

    c.n_text_layer = size("text.n_layer", 256);
    c.n_vocab = size("text.n_vocab", 1 << 20);
    c.n_ctx = size("text.n_ctx", 1 << 20);
    c.text.d = size("text.d_model", 16384);
    c.text.n_head = size("text.n_head", 256);
    c.text.n_kv_head = size("text.n_kv_head", 256);
    c.text.d_head = size("text.d_head", 256);
    c.text.d_hidden = size("text.d_ff", 1 << 16);
    c.text.rope_base = positive("text.rope_base");
    c.text.norm_eps = positive("text.norm_eps");
    multiple("text.n_head", c.text.n_head, "qwen3_asr.text.n_kv_head", c.text.n_kv_head);
    multiple("text.d_head", c.text.d_head, "two", 2);

    const auto max_id = static_cast<uint32_t>(c.n_vocab) - 1;
    c.audio_pad = static_cast<int32_t>(file.u32("qwen3_asr.token.audio_pad", 0, max_id));
    c.stop_tokens = file.i32_array("qwen3_asr.stop_tokens");
    for (int32_t token : c.stop_tokens) {
        if (token >= 0 && token < c.n_vocab) continue;
        throw ModelFileError(file.path() + ": key qwen3_asr.stop_tokens: expected ids below " +
                             std::to_string(c.n_vocab) + ", found " + std::to_string(token));
    }
    const std::string task = file.str("qwen3_asr.task");
    if (task != "transcribe" && task != "align") {
        throw UnsupportedModelError(
            file.path() + ": key qwen3_asr.task: expected transcribe or align, found " + in_quotes(task));
    }
    c.n_classes = task == "align" ? size("n_classes", 1 << 16) : 0;
    if (c.n_classes == 0 && c.stop_tokens.empty()) {
        throw ModelFileError(file.path() +
                             ": key qwen3_asr.stop_tokens: expected at least one id, found none");
    }
    return c;
}

AudioTower::AudioTower(Weights w, const Qwen3AsrConfig::Audio& c)
    : conv1(w / "conv1", c.conv_channels, 3),
      conv2(w / "conv2", c.conv_channels, c.conv_channels, 3),
      conv3(w / "conv3", c.conv_channels, c.conv_channels, 3),
      conv_out(w / "conv_out", int64_t{c.conv_channels} * c.conv_mels(), c.d_model, false),
      positional_embedding(w.get_f32("positional_embedding", {c.d_model, c.chunk_positions()})),
      ln_post(w / "ln_post", c.d_model),
      config_(c) {
    for (int i = 0; i < c.n_layer; ++i) blocks.emplace_back(w / "blocks" / i, c.d_model, c.n_head, c.d_ff);
}

ggml_tensor* AudioTower::stem(Graph& graph, ggml_tensor* mel) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n_chunks = mel->ne[2];
    ggml_tensor* x = conv1(graph, mel, Activation::Gelu);
    x = conv2(graph, x, Activation::Gelu);
    x = graph.tap("conv3", conv3(graph, x, Activation::Gelu));  // [480, 16, 13, N]
    x = ggml_reshape_3d(ctx, x, x->ne[0] * x->ne[1], x->ne[2], n_chunks);
    x = ggml_add(ctx, conv_out(graph, x), positional_embedding);  // [d, 13, N]
    return ggml_reshape_2d(ctx, x, x->ne[0], x->ne[1] * n_chunks);
}

// conv1 gives 6 MB a chunk, and its patches for conv2 may be twice that: on a CPU the chunks go through the
// stem a few at a time, and the memory, most of it still in the cache, serves again.
int64_t AudioTower::chunks_at_once(const Graph& graph) const {
    const int64_t places = halved(config_.n_mels) * halved(config_.chunk_frames);
    const int64_t chunk_bytes = places * config_.conv_channels * static_cast<int64_t>(sizeof(float));
    return std::max<int64_t>(1, (int64_t{graph.on_cpu() ? 24 : 512} << 20) / chunk_bytes);
}

ggml_tensor* AudioTower::operator()(Graph& graph, const AudioLayout& layout) const {
    ggml_context* ctx = graph.ctx();
    const int64_t n_positions = config_.chunk_positions(), at_once = chunks_at_once(graph);
    ggml_tensor* x = layout.x;
    for (int64_t first = 0; first < layout.n_chunks; first += at_once) {
        const int64_t n = std::min(at_once, layout.n_chunks - first);
        ggml_tensor* mel =
            ggml_view_3d(ctx, layout.mel, layout.mel->ne[0], layout.mel->ne[1], n, layout.mel->nb[1],
                         layout.mel->nb[2], layout.mel->nb[2] * static_cast<size_t>(first));
        ggml_tensor* rows = ggml_view_1d(ctx, layout.rows, n_positions * n,
                                         layout.rows->nb[0] * static_cast<size_t>(n_positions * first));
        x = ggml_set_rows(ctx, x, stem(graph, mel), rows);
        graph.effect(x);
    }
    graph.tap("conv", x);
    for (size_t i = 0; i < blocks.size(); ++i) {
        x = blocks[i](graph, x, layout.n_positions, layout.n_segments, layout.valid,
                      config_.window_positions());
        graph.tap("blocks." + std::to_string(i), x);
    }
    return ln_post(graph, x);
}

Projector::Projector(Weights w, int64_t d_audio, int64_t d_text)
    : up(w / 0, d_audio, d_audio), down(w / 2, d_audio, d_text) {}

ggml_tensor* Projector::operator()(Graph& graph, ggml_tensor* x) const {
    return graph.tap("output", down(graph, up(graph, x, Activation::Gelu)));
}

LanguageModel::LanguageModel(Weights root, const Qwen3AsrConfig& c)
    : output(c.n_classes
                 ? Linear(root / "head", c.text.d, c.n_classes, false)
                 : Linear::tied(root / "language_model" / "token_embedding", "weight", c.text.d, c.n_vocab)),
      token_embedding(
          c.n_classes ? Embedding(root / "language_model" / "token_embedding", c.text.d, c.n_vocab)
                      : Embedding(root / "language_model" / "token_embedding", c.text.d, c.n_vocab, output)),
      norm(root / "language_model" / "norm", c.text.d, c.text.norm_eps) {
    for (int i = 0; i < c.n_text_layer; ++i)
        blocks.emplace_back(root / "language_model" / "blocks" / i, c.text);
}

std::unique_ptr<Model> make_qwen3_asr(std::unique_ptr<WeightStore> store) {
    return std::make_unique<Qwen3AsrModel>(std::move(store));
}

}  // namespace rustasr
