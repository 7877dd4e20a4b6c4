#pragma once
// What the speaker encoders share around their networks: a piece of speech to one vector of length 1.
//
//   samples, repeated cyclically up to speaker.min_samples
//     features (frontend.*), normalised as frontend.normalize says      [n_mels, T]
//     parts of one length, a pass at a time                             [n_mels, T, B]
//     network                                                           [d, B]
//     x / ‖x‖; of several parts the mean, x / ‖x‖
//
// Parts of different lengths never share a pass: nothing is padded, so nothing has to be masked.

#include <memory>
#include <vector>

#include "models/model.h"

namespace rustasr {

constexpr int64_t kFramesAtOnce = 1280;  // that keep a CPU busy; more at once would only need more memory

/// What goes through the network for one piece of speech.
struct Parts {
    std::vector<float> samples;   // the piece, filled up
    int64_t n_frames;             // of each part
    std::vector<int64_t> starts;  // its first frame
};

class SpeakerModel : public Model {
   public:
    SpeakerModel(std::unique_ptr<WeightStore> store, int n_dims);
    std::unique_ptr<Session> session() const override;

    /// The network: features [n_mels, T, B] → [n_dims, B]. Taps its stages.
    virtual ggml_tensor* embed(Graph& graph, ggml_tensor* features) const = 0;
    /// The parts of a piece of one sample or more: the whole, where a network does not say otherwise.
    virtual Parts parts(const SamplesView& piece) const;
    /// That the network can take.
    virtual int64_t fewest_frames() const { return frontend.n_frames(min_samples, true, true); }
    /// Of the graph of parts of so many frames.
    virtual size_t max_nodes(int64_t n_frames) const = 0;

    const MelFrontend frontend;
    const int n_dims;
    const int64_t min_samples;  // shorter pieces are filled up
};

}  // namespace rustasr
