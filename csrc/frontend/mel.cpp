#include "frontend/mel.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace rustasr {
namespace {

// The value that stands beside the name that the key holds.
template <typename Value>
Value choice(const GgufFile& file, const char* key,
             std::initializer_list<std::pair<const char*, Value>> known) {
    const std::string found = file.str(key);
    std::string names;
    for (const auto& [name, value] : known) {
        if (found == name) return value;
        names += std::string(names.empty() ? "" : ", ") + name;
    }
    throw UnsupportedModelError(file.path() + ": key " + key + ": expected one of " + names + ", found " +
                                in_quotes(found) + "; this build has no other front end");
}

}  // namespace

MelConfig MelConfig::read(const GgufFile& file) {
    MelConfig config;
    config.sample_rate = static_cast<int>(file.u32("frontend.sample_rate", 8000, 48000));
    config.n_fft = static_cast<int>(file.u32("frontend.n_fft", 16, 4096));
    config.hop_length = static_cast<int>(file.u32("frontend.hop_length", 1, 4096));
    config.n_mels = static_cast<int>(file.u32("frontend.n_mels", 1, 512));
    config.center = file.boolean("frontend.center");
    config.drop_last_frame = file.boolean("frontend.drop_last_frame");
    config.preemphasis = file.f32("frontend.preemphasis");
    config.floor = file.f32("frontend.floor");
    config.pad_mode =
        choice<PadMode>(file, "frontend.pad_mode",
                        {{"reflect", PadMode::Reflect}, {"zero", PadMode::Zero}, {"none", PadMode::None}});
    config.log = choice<LogBase>(file, "frontend.log",
                                 {{"log10", LogBase::Ten}, {"ln", LogBase::E}, {"none", LogBase::None}});
    config.floor_mode = choice<FloorMode>(file, "frontend.floor_mode",
                                          {{"clamp", FloorMode::Clamp}, {"add", FloorMode::Add}});
    config.normalization = choice<Normalization>(file, "frontend.normalize",
                                                 {{"whisper", Normalization::Whisper},
                                                  {"none", Normalization::None},
                                                  {"per_feature", Normalization::PerFeature},
                                                  {"mean", Normalization::Mean}});
    // Only front ends that differ from the first ones have these keys.
    config.framing = file.has("frontend.framing")
                         ? choice<Framing>(file, "frontend.framing",
                                           {{"signal", Framing::Signal}, {"kaldi", Framing::Kaldi}})
                         : Framing::Signal;
    config.win_length = config.n_fft;
    if (config.framing == Framing::Kaldi) {
        config.win_length =
            static_cast<int>(file.u32("frontend.win_length", 2, static_cast<uint32_t>(config.n_fft)));
    }
    if (config.center == (config.pad_mode == PadMode::None)) {
        throw ModelFileError(file.path() + ": key frontend.pad_mode: expected \"none\" if and only if " +
                             "frontend.center is false, found " + in_quotes(file.str("frontend.pad_mode")));
    }
    if (config.framing == Framing::Kaldi && config.center) {
        throw UnsupportedModelError(file.path() +
                                    ": key frontend.center: expected false with Kaldi's frames, found true");
    }
    return config;
}

MelFrontend::MelFrontend(Weights weights, const GgufFile& file)
    : config_(MelConfig::read(file)), fft_(config_.n_fft) {
    window_ = weights.host_f32("window", {config_.win_length});
    const int n_bins = fft_.n_bins();
    const float* filters = weights.host_f32("mel_filters", {n_bins, config_.n_mels});
    for (int mel = 0; mel < config_.n_mels; ++mel) {
        const float* row = filters + static_cast<size_t>(mel) * n_bins;
        int first = 0, last = n_bins;
        while (first < n_bins && row[first] == 0) ++first;
        while (last > first && row[last - 1] == 0) --last;
        bands_.push_back({first, std::vector<float>(row + first, row + last)});
    }
}

int64_t MelFrontend::n_frames(int64_t n_samples, bool pad_left, bool pad_right) const {
    const int64_t pad = config_.center ? config_.n_fft / 2 : 0;
    const int64_t padding = (pad_left ? pad : 0) + (pad_right ? pad : 0);
    int64_t least = std::max<int64_t>(1, config_.win_length - padding);
    if (config_.pad_mode == PadMode::Reflect && padding > 0) least = std::max(least, pad + 1);
    if (n_samples < least) {
        throw OptionError("features of " + std::to_string(n_samples) + " samples: expected at least " +
                          std::to_string(least) + "; pad with zeros");
    }
    const int64_t frames = (n_samples + padding - config_.win_length) / config_.hop_length + 1;
    return frames - (config_.drop_last_frame && pad_right ? 1 : 0);
}

// Reflection does not repeat the edge: x[-1] = x[1], x[n] = x[n - 2]. Pre-emphasis comes before the padding.
double MelFrontend::sample(const float* pcm, int64_t n_samples, int64_t index) const {
    if (config_.pad_mode == PadMode::Reflect) {
        if (index < 0) index = -index;
        if (index >= n_samples) index = 2 * (n_samples - 1) - index;
    }
    if (index < 0 || index >= n_samples) return 0;
    const double x = pcm[index];
    return config_.preemphasis == 0 || index == 0 ? x : x - double(config_.preemphasis) * pcm[index - 1];
}

void MelFrontend::kaldi_frame(const float* pcm, FftLane* frame, int lane) const {
    const int length = config_.win_length;
    double mean = 0;
    for (int i = 0; i < length; ++i) mean += pcm[i];
    mean /= length;
    double before = pcm[0] - mean;
    for (int i = 0; i < length; ++i) {
        const double x = pcm[i] - mean;
        frame[i].v[lane] = (x - double(config_.preemphasis) * before) * window_[i];
        before = x;
    }
    for (int i = length; i < config_.n_fft; ++i) frame[i].v[lane] = 0;
}

float MelFrontend::log_of(float power) const {
    if (config_.log == LogBase::None) return power;
    power = config_.floor_mode == FloorMode::Clamp ? std::max(power, config_.floor) : power + config_.floor;
    return config_.log == LogBase::Ten ? std::log10(power) : std::log(power);
}

void MelFrontend::compute(const float* pcm, int64_t n_samples, bool pad_left, int64_t n_frames,
                          float* log_mel, int ith, int nth) const {
    const int n_fft = config_.n_fft, n_mels = config_.n_mels;
    std::vector<FftLane> frames(static_cast<size_t>(n_fft)), scratch(fft_.scratch_size());
    std::vector<FftLane> power(static_cast<size_t>(fft_.n_bins()));
    const int64_t shift = config_.center && pad_left ? n_fft / 2 : 0;

    for (int64_t t0 = static_cast<int64_t>(ith) * kFftLanes; t0 < n_frames;
         t0 += static_cast<int64_t>(nth) * kFftLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(kFftLanes, n_frames - t0));
        for (int lane = 0; lane < kFftLanes; ++lane) {
            const int64_t start = (t0 + std::min(lane, lanes - 1)) * config_.hop_length - shift;
            if (config_.framing == Framing::Kaldi) {
                kaldi_frame(pcm + start, frames.data(), lane);
            } else if (config_.preemphasis == 0 && start >= 0 && start + n_fft <= n_samples) {
                for (int i = 0; i < n_fft; ++i) frames[i].v[lane] = double(pcm[start + i]) * window_[i];
            } else {
                for (int i = 0; i < n_fft; ++i) {
                    frames[i].v[lane] = sample(pcm, n_samples, start + i) * window_[i];
                }
            }
        }
        fft_.power(frames.data(), scratch.data(), power.data());
        for (int mel = 0; mel < n_mels; ++mel) {
            const Band& band = bands_[mel];
            double sum[kFftLanes] = {};
            for (size_t i = 0; i < band.weights.size(); ++i) {
                const FftLane& bin = power[band.first + i];
                for (int lane = 0; lane < kFftLanes; ++lane) sum[lane] += band.weights[i] * bin.v[lane];
            }
            for (int lane = 0; lane < lanes; ++lane) {
                log_mel[(t0 + lane) * n_mels + mel] = log_of(static_cast<float>(sum[lane]));
            }
        }
    }
}

void normalize_log_mel(float* log_mel, size_t n, float peak) {
    for (size_t i = 0; i < n; ++i) log_mel[i] = (std::max(log_mel[i], peak - 8.0f) + 4.0f) / 4.0f;
}

namespace {

/// Of the columns of rows [n_frames, width].
std::vector<double> column_means(const float* rows, int64_t n_frames, size_t width) {
    std::vector<double> means(width);
    for (int64_t t = 0; t < n_frames; ++t) {
        for (size_t m = 0; m < width; ++m) means[m] += rows[static_cast<size_t>(t) * width + m];
    }
    for (double& sum : means) sum /= static_cast<double>(n_frames);
    return means;
}

}  // namespace

void normalize_per_feature(float* log_mel, int64_t n_frames, int64_t n_mels) {
    constexpr double kStdFloor = 1e-5;  // features.py: CONSTANT
    const auto width = static_cast<size_t>(n_mels);
    const std::vector<double> mean = column_means(log_mel, n_frames, width);
    std::vector<double> scale(width);
    for (int64_t t = 0; t < n_frames; ++t) {
        for (size_t m = 0; m < width; ++m) {
            const double off = log_mel[static_cast<size_t>(t) * width + m] - mean[m];
            scale[m] += off * off;
        }
    }
    for (double& sum : scale) {
        const double deviation = n_frames > 1 ? std::sqrt(sum / static_cast<double>(n_frames - 1)) : 0;
        sum = 1 / (deviation + kStdFloor);
    }
    for (int64_t t = 0; t < n_frames; ++t) {
        for (size_t m = 0; m < width; ++m) {
            float& x = log_mel[static_cast<size_t>(t) * width + m];
            x = static_cast<float>((x - mean[m]) * scale[m]);
        }
    }
}

void subtract_mean(float* log_mel, int64_t n_frames, int64_t n_mels) {
    const auto width = static_cast<size_t>(n_mels);
    const std::vector<double> mean = column_means(log_mel, n_frames, width);
    for (int64_t t = 0; t < n_frames; ++t) {
        for (size_t m = 0; m < width; ++m) {
            float& x = log_mel[static_cast<size_t>(t) * width + m];
            x = static_cast<float>(x - mean[m]);
        }
    }
}

}  // namespace rustasr
