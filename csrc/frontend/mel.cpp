#include "frontend/mel.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace rustasr {
namespace {

void expect(const GgufFile& file, const char* key, const std::string& found, const char* expected) {
    if (found == expected) return;
    throw UnsupportedModelError(file.path() + ": key " + key + ": expected " + expected + ", found " +
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
    config.floor = file.f32("frontend.floor");
    expect(file, "frontend.pad_mode", file.str("frontend.pad_mode"), "reflect");
    expect(file, "frontend.log", file.str("frontend.log"), "log10");
    expect(file, "frontend.floor_mode", file.str("frontend.floor_mode"), "clamp");
    expect(file, "frontend.normalize", file.str("frontend.normalize"), "whisper");
    return config;
}

MelFrontend::MelFrontend(Weights weights, const GgufFile& file)
    : config_(MelConfig::read(file)), fft_(config_.n_fft) {
    window_ = weights.host_f32("window", {config_.n_fft});
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
    const int64_t padded = n_samples + (pad_left ? pad : 0) + (pad_right ? pad : 0);
    if (padded < config_.n_fft || ((pad_left || pad_right) && n_samples <= pad)) {
        throw OptionError("features of " + std::to_string(n_samples) + " samples: expected more than " +
                          std::to_string(std::max<int64_t>(pad, config_.n_fft - pad)) + "; pad with zeros");
    }
    const int64_t frames = (padded - config_.n_fft) / config_.hop_length + 1;
    return frames - (config_.drop_last_frame && pad_right ? 1 : 0);
}

// Reflection without repeating the edge: x[-1] = x[1], x[n] = x[n - 2].
float MelFrontend::sample(const float* pcm, int64_t n_samples, int64_t index) const {
    if (index < 0) index = -index;
    if (index >= n_samples) index = 2 * (n_samples - 1) - index;
    return index >= 0 && index < n_samples ? pcm[index] : 0.0f;
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
            if (start >= 0 && start + n_fft <= n_samples) {
                for (int i = 0; i < n_fft; ++i) frames[i].v[lane] = double(pcm[start + i]) * window_[i];
            } else {
                for (int i = 0; i < n_fft; ++i) {
                    frames[i].v[lane] = double(sample(pcm, n_samples, start + i)) * window_[i];
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
                log_mel[(t0 + lane) * n_mels + mel] =
                    std::log10(std::max(static_cast<float>(sum[lane]), config_.floor));
            }
        }
    }
}

void normalize_log_mel(float* log_mel, size_t n, float peak) {
    for (size_t i = 0; i < n; ++i) log_mel[i] = (std::max(log_mel[i], peak - 8.0f) + 4.0f) / 4.0f;
}

}  // namespace rustasr
