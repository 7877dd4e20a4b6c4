// Whisper: encoder-decoder with cross-attention. Follows whisper/model.py (openai-whisper 20250625).
//
//   log-mel [n_mels, 3000, B]
//     conv1  k3 s1, GELU                          [d, 3000, B]
//     conv2  k3 s2, GELU                          [d, 1500, B]
//     + encoder.positional_embedding              [d, 1500, B]
//     n_audio_layer × EncoderBlock, ln_post       [d, 1500·B]
//     per decoder block: cross_attn.kv            [2d, 1500·B] → kept on the device (AudioMemory)
//
//   tokens [T, W]
//     token_embedding + decoder.positional_embedding  [d, T·W]
//     n_text_layer × CrossDecoderBlock, ln            [d, T·W]
//     · token_embeddingᵀ                              [n_vocab, rows wanted]

#include "models/whisper.h"

#include <algorithm>

#include "core/error.h"

namespace rustasr {

WhisperConfig WhisperConfig::read(const GgufFile& file) {
    const auto size = [&](const char* name, uint32_t max) {
        return static_cast<int>(file.u32(std::string("whisper.") + name, 1, max));
    };
    WhisperConfig c{};
    c.n_mels = static_cast<int>(file.u32("frontend.n_mels", 1, 512));
    c.n_audio_ctx = size("n_audio_ctx", 4096);
    c.n_audio_state = size("n_audio_state", 8192);
    c.n_audio_head = size("n_audio_head", 256);
    c.n_audio_layer = size("n_audio_layer", 256);
    c.n_vocab = size("n_vocab", 1 << 20);
    c.n_text_ctx = size("n_text_ctx", 8192);
    c.n_text_state = size("n_text_state", 8192);
    c.n_text_head = size("n_text_head", 256);
    c.n_text_layer = size("n_text_layer", 256);
    c.n_languages = static_cast<int>(file.str_array("whisper.languages").size());

    const auto divides = [&](const char* state, int n_state, const char* head, int n_head) {
        if (n_state % n_head == 0) return;
        throw ModelFileError(file.path() + ": key whisper." + state + ": expected a multiple of whisper." +
                             head + " (" + std::to_string(n_head) + "), found " + std::to_string(n_state));
    };
    divides("n_audio_state", c.n_audio_state, "n_audio_head", c.n_audio_head);
    divides("n_text_state", c.n_text_state, "n_text_head", c.n_text_head);
    if (c.n_audio_state != c.n_text_state) {
        throw UnsupportedModelError(file.path() + ": key whisper.n_text_state: expected " +
                                    std::to_string(c.n_audio_state) + " as whisper.n_audio_state, found " +
                                    std::to_string(c.n_text_state));
    }

    const auto id = [&](const char* name) {
        return static_cast<int32_t>(
            file.u32(std::string("whisper.token.") + name, 0, static_cast<uint32_t>(c.n_vocab) - 1));
    };
    c.end_of_text = id("endoftext");
    c.start_of_transcript = id("startoftranscript");
    c.no_speech = id("nospeech");
    c.no_timestamps = id("notimestamps");
    c.timestamp_begin = id("timestamp_begin");
    if (c.start_of_transcript + c.n_languages >= c.n_vocab) {
        throw ModelFileError(file.path() + ": key whisper.languages: " + std::to_string(c.n_languages) +
                             " languages do not fit behind token " + std::to_string(c.start_of_transcript) +
                             " of " + std::to_string(c.n_vocab));
    }
    c.begin_suppress = file.i32_array("whisper.begin_suppress_tokens");
    for (int32_t token : c.begin_suppress) {
        if (token >= 0 && token < c.n_vocab) continue;
        throw ModelFileError(file.path() + ": key whisper.begin_suppress_tokens: expected ids below " +
                             std::to_string(c.n_vocab) + ", found " + std::to_string(token));
    }
    const std::vector<int32_t> heads = file.i32_array("whisper.alignment_heads");
    for (size_t i = 0; i + 1 < heads.size() + heads.size() % 2; i += 2) {
        const int layer = heads[i], head = i + 1 < heads.size() ? heads[i + 1] : -1;
        if (layer < 0 || layer >= c.n_text_layer || head < 0 || head >= c.n_text_head) {
            throw ModelFileError(file.path() + ": key whisper.alignment_heads: expected pairs below (" +
                                 std::to_string(c.n_text_layer) + ", " + std::to_string(c.n_text_head) +
                                 "), found (" + std::to_string(layer) + ", " + std::to_string(head) + ")");
        }
        c.alignment_heads.emplace_back(layer, head);
    }
    return c;
}

WhisperEncoder::WhisperEncoder(Weights w, const WhisperConfig& c)
    : conv1(w / "conv1", c.n_mels, c.n_audio_state, 3, 1),
      conv2(w / "conv2", c.n_audio_state, c.n_audio_state, 3, 2),
      positional_embedding(w.get_f32("positional_embedding", {c.n_audio_state, c.n_audio_ctx})),
      ln_post(w / "ln_post", c.n_audio_state) {
    for (int i = 0; i < c.n_audio_layer; ++i)
        blocks.emplace_back(w / "blocks" / i, c.n_audio_state, c.n_audio_head, 4 * c.n_audio_state);
}

ggml_tensor* WhisperEncoder::operator()(Graph& graph, ggml_tensor* mel) const {
    ggml_context* ctx = graph.ctx();
    ggml_tensor* x = conv1(graph, mel, Activation::Gelu);
    x = conv2(graph, pad_frames(graph, x, 1, 0), Activation::Gelu);
    x = graph.tap("conv", ggml_add(ctx, x, positional_embedding));  // [d, 1500, B]
    const int64_t n_frames = x->ne[1], batch = x->ne[2];
    x = ggml_reshape_2d(ctx, x, x->ne[0], n_frames * batch);
    for (size_t i = 0; i < blocks.size(); ++i) {
        x = graph.tap("blocks." + std::to_string(i), blocks[i](graph, x, n_frames, batch));
    }
    return graph.tap("output", ln_post(graph, x));
}

WhisperDecoder::WhisperDecoder(Weights w, const WhisperConfig& c)
    : logits(Linear::tied(w / "token_embedding", "weight", c.n_text_state, c.n_vocab)),
      token_embedding(w / "token_embedding", c.n_text_state, c.n_vocab, logits),
      positional_embedding(w.get_f32("positional_embedding", {c.n_text_state, c.n_text_ctx})),
      ln(w / "ln", c.n_text_state) {
    for (int i = 0; i < c.n_text_layer; ++i)
        blocks.emplace_back(w / "blocks" / i, c.n_text_state, c.n_text_head);
}

std::unique_ptr<Model> make_whisper(std::unique_ptr<WeightStore> store) {
    return std::make_unique<WhisperModel>(std::move(store));
}

}  // namespace rustasr
