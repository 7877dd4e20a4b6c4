#include "decode/recognition.h"

#include <cmath>
#include <string>

#include "core/error.h"
#include "ggml-backend.h"

namespace rustasr {

void SearchOptions::check() const {
    const auto fail = [](const char* what, const char* expected, const std::string& found) {
        throw OptionError(std::string(what) + ": expected " + expected + ", found " + found);
    };
    if (beam_size < 1 || beam_size > kMostBeams)
        fail("beam_size", ("1.." + std::to_string(kMostBeams)).c_str(), std::to_string(beam_size));
    if (max_symbols < 0 || max_symbols > 1000)
        fail("max_symbols", "0 (the model's own) to 1000", std::to_string(max_symbols));
    if (!(hotword_boost >= 0 && hotword_boost <= 100))
        fail("hotword_boost", "0..100", std::to_string(hotword_boost));
    if (!(expansion_gamma >= 0)) fail("expansion_gamma", "0 or more", std::to_string(expansion_gamma));
    if (!hotwords.empty() && beam_size == 1)
        fail("hotwords", "a beam_size of 2 or more with them", "beam_size 1 (greedy)");
    for (const std::vector<int32_t>& phrase : hotwords) {
        if (phrase.empty()) fail("hotwords", "one or more tokens in each", "none");
    }
}

void SearchOptions::check_ids(int32_t n_vocab) const {
    const auto check_id = [&](const char* what, int32_t id) {
        if (id >= 0 && id < n_vocab) return;
        throw OptionError(std::string(what) + ": expected ids of 0 to " + std::to_string(n_vocab - 1) +
                          ", found " + std::to_string(id));
    };
    for (int32_t id : suppress) check_id("suppress", id);
    for (const std::vector<int32_t>& phrase : hotwords) {
        for (int32_t id : phrase) check_id("hotwords", id);
    }
}

void EncodedFrames::check(const std::vector<int>& utterances) const {
    for (int utterance : utterances) {
        if (utterance >= 0 && utterance < static_cast<int>(lengths.size())) continue;
        throw OptionError("utterance: expected 0.." + std::to_string(lengths.size() - 1) + ", found " +
                          std::to_string(utterance));
    }
}

std::vector<float> EncodedFrames::read(int utterance) const {
    const auto n_frames = static_cast<size_t>(lengths[static_cast<size_t>(utterance)]);
    std::vector<float> frames(n_frames * static_cast<size_t>(values->ne[0]));
    if (!frames.empty()) {
        ggml_backend_tensor_get(values, frames.data(), static_cast<size_t>(utterance) * values->nb[2],
                                frames.size() * sizeof(float));
    }
    return frames;
}

}  // namespace rustasr
