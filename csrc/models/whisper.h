#pragma once
// Whisper's hyper-parameters and modules: between the network (whisper.cpp) and what runs it
// (whisper_session.cpp).

#include <memory>
#include <utility>
#include <vector>

#include "models/model.h"
#include "nn/transformer.h"

namespace rustasr {

struct WhisperConfig {
    int n_mels, n_audio_ctx, n_audio_state, n_audio_head, n_audio_layer;
    int n_vocab, n_text_ctx, n_text_state, n_text_head, n_text_layer;
    int n_languages;
    int32_t end_of_text, start_of_transcript, no_speech, no_timestamps, timestamp_begin;
    std::vector<int32_t> begin_suppress;
    std::vector<std::pair<int, int>> alignment_heads;  // layer, head

    static WhisperConfig read(const GgufFile& file);
    int n_mel_frames() const { return 2 * n_audio_ctx; }  // conv2 halves the rate
};

struct WhisperEncoder {
    Conv1d conv1, conv2;
    ggml_tensor* positional_embedding;  // [d, 1500]
    std::vector<EncoderBlock> blocks;
    LayerNorm ln_post;

    WhisperEncoder(Weights w, const WhisperConfig& c);

    /// mel [n_mels, 3002, B], one frame of zeros on each side → [d, 1500·B]
    ggml_tensor* operator()(Graph& graph, ggml_tensor* mel) const;
};

struct WhisperDecoder {
    Linear logits;
    Embedding token_embedding;          // the same matrix
    ggml_tensor* positional_embedding;  // [d, 448]
    std::vector<CrossDecoderBlock> blocks;
    LayerNorm ln;

    WhisperDecoder(Weights w, const WhisperConfig& c);
};

class WhisperModel : public Model {
   public:
    explicit WhisperModel(std::unique_ptr<WeightStore> store)
        : Model(std::move(store)),
          config(WhisperConfig::read(file())),
          frontend(store_->root() / "frontend", file()),
          encoder(store_->root() / "encoder", config),
          decoder(store_->root() / "decoder", config) {}

    std::unique_ptr<Session> session() const override;

    const WhisperConfig config;
    const MelFrontend frontend;
    const WhisperEncoder encoder;
    const WhisperDecoder decoder;
};

}  // namespace rustasr
