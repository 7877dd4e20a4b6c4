#pragma once
// What the speaker encoders share around their networks: a piece of speech to one vector of length 1.
//
//   samples, repeated cyclically up to speaker.min_samples
//     features (frontend.*), normalised as frontend.normalize says      [n_mels, T]
//     pieces of one length, a pass at a time                            [n_mels, T, B]
//     network                                                           [d, B]
//     x / ‖x‖
//
// Pieces of different lengths never share a pass: nothing is padded, so nothing has to be masked.

#include <memory>

#include "models/model.h"

namespace rustasr {

class SpeakerModel : public Model {
   public:
    SpeakerModel(std::unique_ptr<WeightStore> store, int n_dims);
    std::unique_ptr<Session> session() const override;

    /// The network: features [n_mels, T, B] → [n_dims, B]. Taps its stages.
    virtual ggml_tensor* embed(Graph& graph, ggml_tensor* features) const = 0;
    /// Of the graph of pieces of so many frames.
    virtual size_t max_nodes(int64_t n_frames) const = 0;

    const MelFrontend frontend;
    const int n_dims;
    const int64_t min_samples;  // shorter pieces are repeated
};

}  // namespace rustasr
