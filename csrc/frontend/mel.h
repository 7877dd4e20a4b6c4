#pragma once
// PCM → log-mel features. The window and the filterbank come from the model file; what else differs between
// families is in MelConfig, read from the file's `frontend.*` keys.
// Follows whisper/audio.py (openai-whisper 20250625): log_mel_spectrogram.

#include <memory>
#include <string>
#include <vector>

#include "core/gguf.h"
#include "core/weights.h"
#include "frontend/fft.h"

namespace rustasr {

struct MelConfig {
    int sample_rate;  // Hz
    int n_fft;        // samples, also the window's length
    int hop_length;   // samples
    int n_mels;
    bool center;  // frame t is centred on sample t·hop
    bool drop_last_frame;
    float floor;  // of the mel power, before the logarithm

    /// Throws ModelFileError, or UnsupportedModelError for a value that nothing here implements.
    static MelConfig read(const GgufFile& file);
};

class MelFrontend {
   public:
    explicit MelFrontend(Weights weights, const GgufFile& file);

    const MelConfig& config() const { return config_; }
    /// Frames of `n_samples` with or without the centre padding on each side. Throws OptionError when too
    /// short.
    int64_t n_frames(int64_t n_samples, bool pad_left, bool pad_right) const;
    /// Fills frames ith, ith + nth, … (in groups of kFftLanes) of log_mel [n_frames, n_mels], not normalised.
    void compute(const float* pcm, int64_t n_samples, bool pad_left, int64_t n_frames, float* log_mel,
                 int ith, int nth) const;

   private:
    struct Band {  // the filter's non-zero bins
        int first;
        std::vector<float> weights;
    };
    float sample(const float* pcm, int64_t n_samples, int64_t index) const;

    MelConfig config_;
    RealFft fft_;
    const float* window_;  // [n_fft]
    std::vector<Band> bands_;
};

/// Whisper's dynamic range and scale: (max(x, peak − 8) + 4)/4, in place. `peak` is the loudest log-mel
/// value.
void normalize_log_mel(float* log_mel, size_t n, float peak);

}  // namespace rustasr
