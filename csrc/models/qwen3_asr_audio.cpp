#include "models/qwen3_asr_audio.h"

#include <algorithm>

#include "core/error.h"

namespace rustasr {

// A CPU's cores are busy with a few windows; more would only need more memory. Our own attention knows
// windows inside a sequence, so that a clip's last window, which is shorter, is not padded; ggml's does not.
Qwen3AsrAudioEncoder::Qwen3AsrAudioEncoder(Backend& backend, const Qwen3AsrModel& model,
                                           kernels::Precision precision)
    : backend_(backend),
      model_(model),
      config_(model.config.audio),
      precision_(precision),
      most_windows_(backend.on_cpu() ? 8 : 64),
      windows_per_segment_(attention_is_ours(backend, config_.d_model / config_.n_head) ? most_windows_ : 1) {
}

int Qwen3AsrAudioEncoder::n_positions(int64_t n_frames) const {
    return static_cast<int>(n_frames / config_.chunk_frames) * config_.chunk_positions() +
           Qwen3AsrConfig::Audio::positions(static_cast<int>(n_frames % config_.chunk_frames));
}

std::vector<Qwen3AsrAudioEncoder::Segment> Qwen3AsrAudioEncoder::segments_of(
    const std::vector<MatrixView>& features) const {
    if (features.empty()) throw OptionError("features: expected at least one clip, found none");
    const int64_t most_frames = int64_t{windows_per_segment_} * config_.window_frames;
    std::vector<Segment> segments;
    for (size_t clip = 0; clip < features.size(); ++clip) {
        const MatrixView& mel = features[clip];
        if (mel.columns != config_.n_mels || mel.rows < 1) {
            throw OptionError("features: expected frames of " + std::to_string(config_.n_mels) +
                              " mels, found " + std::to_string(mel.rows) + " of " +
                              std::to_string(mel.columns));
        }
        for (int64_t first = 0; first < mel.rows; first += most_frames) {
            const int64_t n = std::min(most_frames, mel.rows - first);
            const auto n_chunks = static_cast<int>((n + config_.chunk_frames - 1) / config_.chunk_frames);
            segments.push_back({static_cast<int>(clip), first, n, n_chunks, n_positions(n)});
        }
    }
    return segments;
}

std::unique_ptr<Qwen3AsrAudioEncoder::Pass> Qwen3AsrAudioEncoder::build(const PassShape& s,
                                                                        GraphMemory memory) const {
    auto pass = std::make_unique<Pass>(backend_, precision_, s.taps, std::move(memory));
    Graph& graph = pass->graph;
    pass->layout = {s.n_chunks,
                    s.n_segments,
                    s.n_positions,
                    graph.input(GGML_TYPE_F32, {config_.n_mels, config_.chunk_frames, s.n_chunks}),
                    graph.input(GGML_TYPE_F32, {config_.d_model, s.n_positions * s.n_segments}),
                    graph.input(GGML_TYPE_I64, {config_.chunk_positions() * s.n_chunks}),
                    FrameMask(graph, s.n_positions, s.n_segments)};
    pass->output = model_.projector(graph, model_.audio_tower(graph, pass->layout));
    graph.output(pass->output);
    graph.finish();
    return pass;
}

const Qwen3AsrAudioEncoder::Pass& Qwen3AsrAudioEncoder::run(const std::vector<MatrixView>& features,
                                                            const Segment* segments, size_t n_segments,
                                                            std::vector<std::string> taps) {
    PassShape shape{0, static_cast<int64_t>(n_segments), 0, std::move(taps)};
    for (size_t s = 0; s < n_segments; ++s) {
        shape.n_chunks += segments[s].n_chunks;
        shape.n_positions =
            std::max(shape.n_positions, int64_t{segments[s].n_chunks} * config_.chunk_positions());
    }
    Pass& pass = pass_.of(shape, [&](GraphMemory memory) { return build(shape, std::move(memory)); });
    const AudioLayout& layout = pass.layout;
    const size_t chunk_size = static_cast<size_t>(config_.n_mels) * static_cast<size_t>(config_.chunk_frames);
    std::vector<float> mel(chunk_size * static_cast<size_t>(layout.n_chunks), 0.0f);
    std::vector<int64_t> rows;
    std::vector<int> lengths;
    for (size_t s = 0; s < n_segments; ++s) {
        const Segment& segment = segments[s];
        const MatrixView& clip = features[static_cast<size_t>(segment.clip)];
        const size_t first_chunk = rows.size() / static_cast<size_t>(config_.chunk_positions());
        std::copy_n(clip.values + segment.first_frame * clip.columns, segment.n_frames * clip.columns,
                    &mel[first_chunk * chunk_size]);
        for (int64_t i = 0; i < int64_t{segment.n_chunks} * config_.chunk_positions(); ++i)
            rows.push_back(static_cast<int64_t>(s) * layout.n_positions + i);
        lengths.push_back(segment.n_positions);
    }
    write(layout.mel, mel.data());
    write(layout.rows, rows.data());
    // Vectors of chunks that a segment does not have are never looked at, but must be numbers.
    ggml_backend_tensor_memset(layout.x, 0, 0, ggml_nbytes(layout.x));
    layout.valid.set(lengths);
    pass.graph.run();
    return pass;
}

std::vector<std::shared_ptr<const Matrix>> Qwen3AsrAudioEncoder::encode(
    const std::vector<MatrixView>& features) {
    std::vector<Segment> segments = segments_of(features);
    // Segments of about the same length go together, so that little is computed on padding.
    std::stable_sort(segments.begin(), segments.end(),
                     [](const Segment& a, const Segment& b) { return a.n_chunks > b.n_chunks; });

    const auto d = static_cast<size_t>(model_.config.text.d);
    std::vector<std::shared_ptr<Matrix>> clips;
    for (const MatrixView& mel : features) {
        const int64_t rows = n_positions(mel.rows);
        clips.push_back(std::make_shared<Matrix>(
            Matrix{rows, model_.config.text.d, std::vector<float>(static_cast<size_t>(rows) * d)}));
    }
    std::vector<float> output;
    const int window_chunks = config_.window_frames / config_.chunk_frames;
    for (size_t first = 0, n_segments; first < segments.size(); first += n_segments) {
        const int longest = segments[first].n_chunks;
        n_segments = static_cast<size_t>(std::max(1, most_windows_ * window_chunks / longest));
        n_segments = std::min(n_segments, segments.size() - first);
        const Pass& pass = run(features, &segments[first], n_segments, {});
        output.resize(static_cast<size_t>(ggml_nelements(pass.output)));
        read(pass.output, output.data());
        for (size_t s = 0; s < n_segments; ++s) {
            const Segment& segment = segments[first + s];
            const int64_t row = segment.first_frame / config_.chunk_frames * config_.chunk_positions();
            std::copy_n(&output[s * static_cast<size_t>(pass.layout.n_positions) * d],
                        static_cast<size_t>(segment.n_positions) * d,
                        &clips[static_cast<size_t>(segment.clip)]->values[static_cast<size_t>(row) * d]);
        }
    }
    return {clips.begin(), clips.end()};
}

std::map<std::string, Matrix> Qwen3AsrAudioEncoder::taps(const std::vector<MatrixView>& features,
                                                         const std::vector<std::string>& names) {
    const std::vector<Segment> segments = segments_of(features);
    const Pass& pass = run(features, segments.data(), segments.size(), names);
    std::map<std::string, Matrix> taps = collect_taps(pass.graph, names);
    for (auto& [name, matrix] : taps) {
        if (name == "conv3") continue;  // all outputs of the chunks that went through the stem last
        Matrix valid{0, matrix.columns, {}};
        for (size_t s = 0; s < segments.size(); ++s) {
            const auto begin =
                matrix.values.begin() + static_cast<int64_t>(s) * pass.layout.n_positions * matrix.columns;
            valid.values.insert(valid.values.end(), begin, begin + segments[s].n_positions * matrix.columns);
            valid.rows += segments[s].n_positions;
        }
        matrix = std::move(valid);
    }
    return taps;
}

}  // namespace rustasr
