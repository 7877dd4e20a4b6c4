#pragma once
// Runs Qwen3-ASR's audio tower and projector over a batch of clips.

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/last_pass.h"
#include "models/qwen3_asr.h"

namespace rustasr {

class Qwen3AsrAudioEncoder {
   public:
    Qwen3AsrAudioEncoder(Backend& backend, const Qwen3AsrModel& model, kernels::Precision precision);

    /// Normalised log-mel [T, n_mels] of each clip → its vectors [d_text]. Throws OptionError.
    std::vector<std::shared_ptr<const Matrix>> encode(const std::vector<MatrixView>& features);
    /// Named intermediates, of all clips one after the other.
    std::map<std::string, Matrix> taps(const std::vector<MatrixView>& features,
                                       const std::vector<std::string>& names);

   private:
    /// A piece of a clip that is computed at once: whole windows, but for the end of the clip.
    struct Segment {
        int clip;
        int64_t first_frame, n_frames;
        int n_chunks, n_positions;
    };
    /// Which graph: segments of up to n_positions vectors, of n_chunks in all.
    struct PassShape {
        int64_t n_chunks, n_segments, n_positions;
        std::vector<std::string> taps;

        auto key() const { return std::tie(n_chunks, n_segments, n_positions, taps); }
        bool operator==(const PassShape& other) const { return key() == other.key(); }
    };
    struct Pass {
        Pass(Backend& backend, kernels::Precision precision, std::vector<std::string> taps,
             GraphMemory memory)
            : graph(backend, 32768, precision, std::move(taps), std::move(memory)) {}
        Graph graph;
        AudioLayout layout{};
        ggml_tensor* output = nullptr;  // [d_text, n_positions · n_segments]
    };

    int n_positions(int64_t n_frames) const;
    std::vector<Segment> segments_of(const std::vector<MatrixView>& features) const;
    std::unique_ptr<Pass> build(const PassShape& shape, GraphMemory memory) const;
    /// The pass of these segments, which has run.
    const Pass& run(const std::vector<MatrixView>& features, const Segment* segments, size_t n_segments,
                    std::vector<std::string> taps);

    Backend& backend_;
    const Qwen3AsrModel& model_;
    const Qwen3AsrConfig::Audio& config_;
    kernels::Precision precision_;
    int most_windows_;         // that are computed at once
    int windows_per_segment_;  // at most
    LastPass<PassShape, Pass> pass_;
};

}  // namespace rustasr
