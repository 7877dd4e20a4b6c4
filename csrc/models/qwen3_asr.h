#pragma once
// Qwen3-ASR's hyper-parameters and modules: between the network (qwen3_asr.cpp) and what runs it
// (qwen3_asr_audio.cpp,
// qwen3_asr_session.cpp).

#include <memory>
#include <vector>

#include "models/model.h"
#include "nn/convolution.h"
#include "nn/transformer.h"

namespace rustasr {

struct Qwen3AsrConfig {
    struct Audio {
        int n_mels, n_layer, d_model, n_head, d_ff, conv_channels;
        int chunk_frames, window_frames;  // mel frames

        int chunk_positions() const { return positions(chunk_frames); }
        int window_positions() const { return window_frames / chunk_frames * chunk_positions(); }
        /// Vectors that a chunk of n mel frames gives: three convolutions of stride 2.
        static int positions(int n_frames);
        int conv_mels() const { return positions(n_mels); }
    } audio;
    CausalDims text;
    int n_text_layer, n_vocab, n_ctx;
    int32_t audio_pad;
    std::vector<int32_t> stop_tokens;
    int n_classes;  // of the aligner; 0: the embedding is the output matrix

    static Qwen3AsrConfig read(const GgufFile& file);
};

/// Where the chunks of a batch of segments go, as inputs of an encoder graph. A segment is a row of
/// `n_positions` vectors, made of windows that do not see each other; its chunks stand side by side from the
/// left.
struct AudioLayout {
    int64_t n_chunks, n_segments, n_positions;

    ggml_tensor* mel;   // [n_mels, chunk_frames, n_chunks], zeros behind the last frame of a clip
    ggml_tensor* x;     // [d, n_positions · n_segments], zeros
    ggml_tensor* rows;  // I64 [chunk_positions · n_chunks]: where in x the vectors of the chunks go
    FrameMask valid;    // vectors that count in each segment
};

struct AudioTower {
    InputConv2d conv1;
    Conv2d conv2, conv3;
    Linear conv_out;
    ggml_tensor* positional_embedding;  // [d, chunk_positions]
    std::vector<EncoderBlock> blocks;
    LayerNorm ln_post;

    AudioTower(Weights w, const Qwen3AsrConfig::Audio& c);

    /// → [d, n_positions · n_segments]
    ggml_tensor* operator()(Graph& graph, const AudioLayout& layout) const;

   private:
    /// mel [n_mels, chunk_frames, N] → [d, chunk_positions · N]
    ggml_tensor* stem(Graph& graph, ggml_tensor* mel) const;
    int64_t chunks_at_once(const Graph& graph) const;

    Qwen3AsrConfig::Audio config_;
};

struct Projector {
    Linear up, down;

    Projector(Weights w, int64_t d_audio, int64_t d_text);
    ggml_tensor* operator()(Graph& graph, ggml_tensor* x) const;  // [d_audio, T] → [d_text, T]
};

struct LanguageModel {
    Linear output;  // the token embedding, or the aligner's classes
    Embedding token_embedding;
    std::vector<CausalBlock> blocks;
    RmsNorm norm;

    LanguageModel(Weights root, const Qwen3AsrConfig& c);
};

class Qwen3AsrModel : public Model {
   public:
    explicit Qwen3AsrModel(std::unique_ptr<WeightStore> store)
        : Model(std::move(store)),
          config(Qwen3AsrConfig::read(file())),
          frontend(store_->root() / "frontend", file()),
          audio_tower(store_->root() / "audio_tower", config.audio),
          projector(store_->root() / "projector", config.audio.d_model, config.text.d),
          language_model(store_->root(), config) {}

    std::unique_ptr<Session> session() const override;

    const Qwen3AsrConfig config;
    const MelFrontend frontend;
    const AudioTower audio_tower;
    const Projector projector;
    const LanguageModel language_model;
};

}  // namespace rustasr
