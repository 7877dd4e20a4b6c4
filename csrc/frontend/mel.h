#pragma once
// PCM → log-mel features. The window and the filterbank come from the model file; what else differs between
// families is in MelConfig, read from the file's `frontend.*` keys. Follows, by those keys:
//   whisper/audio.py (openai-whisper 20250625): log_mel_spectrogram
//   gigaam/preprocess.py (GigaAM, 2026-06): FeatureExtractor
//   nemo/collections/asr/parts/preprocessing/features.py (NeMo 3.0.0): FilterbankFeatures
//   kaldi/src/feat/feature-window.cc, feature-fbank.cc (also torchaudio's compliance/kaldi.py): fbank
//   librosa/feature/spectral.py (librosa 0.11): melspectrogram

#include <memory>
#include <string>
#include <vector>

#include "core/gguf.h"
#include "core/weights.h"
#include "frontend/fft.h"

namespace rustasr {

enum class PadMode { None, Reflect, Zero };  // what lies beyond the ends of the samples
enum class LogBase { None, Ten, E };         // None: the power itself
enum class FloorMode { Clamp, Add };         // log(max(power, floor)), log(power + floor)
/// Signal: pre-emphasis runs through the recording. Kaldi: every frame is a signal of its own, less its mean
/// and with pre-emphasis that takes the sample before the first to be equal to it.
enum class Framing { Signal, Kaldi };
enum class Normalization { None, Whisper, PerFeature, Mean };

struct MelConfig {
    int sample_rate;  // Hz
    int n_fft;        // samples
    int win_length;   // samples of a frame; zeros follow up to n_fft
    int hop_length;   // samples
    int n_mels;
    bool center;  // frame t is centred on sample t·hop
    PadMode pad_mode;
    bool drop_last_frame;
    float preemphasis;  // c of x[n] − c·x[n−1]; 0: none
    LogBase log;
    float floor;  // of the mel power, before the logarithm
    FloorMode floor_mode;
    Framing framing;
    Normalization normalization;  // the caller's work

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
    /// Sample 0 counts as the recording's first: with pre-emphasis a later block gives the frames of the
    /// whole only because the window that goes with it starts with zeros.
    void compute(const float* pcm, int64_t n_samples, bool pad_left, int64_t n_frames, float* log_mel,
                 int ith, int nth) const;

   private:
    struct Band {  // the filter's non-zero bins
        int first;
        std::vector<float> weights;
    };
    double sample(const float* pcm, int64_t n_samples, int64_t index) const;
    void kaldi_frame(const float* pcm, FftLane* frame, int lane) const;
    float log_of(float power) const;

    MelConfig config_;
    RealFft fft_;
    const float* window_;  // [win_length]
    std::vector<Band> bands_;
};

/// Whisper's dynamic range and scale: (max(x, peak − 8) + 4)/4, in place. `peak` is the loudest log-mel
/// value.
void normalize_log_mel(float* log_mel, size_t n, float peak);

/// NeMo's normalize="per_feature": each mel over the n_frames rows of log_mel, (x − mean)/(σ + 1e-5) with the
/// unbiased σ (0 for a single frame), in place.
void normalize_per_feature(float* log_mel, int64_t n_frames, int64_t n_mels);

/// Cepstral mean normalisation: each mel less its mean over the n_frames rows of log_mel, in place.
void subtract_mean(float* log_mel, int64_t n_frames, int64_t n_mels);

}  // namespace rustasr
