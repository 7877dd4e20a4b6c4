#pragma once
// What GigaAM and Parakeet share behind their networks: the model with its head, and the session that runs
// it.

#include <memory>
#include <optional>

#include "models/model.h"
#include "nn/conformer.h"
#include "nn/transducer.h"

namespace rustasr {

/// What reads the encoder's frames: a CTC layer or a transducer's decoder.
class ConformerHead {
   public:
    /// Throws ModelFileError.
    ConformerHead(Weights root, const GgufFile& file, int d_model);

    /// frames [d_model, T·B] → what the search sees of each (EncodedFrames) [width(), T·B]: logits, or
    /// joint.enc.
    ggml_tensor* operator()(Graph& graph, ggml_tensor* frames) const;
    int width() const { return width_; }
    /// Null for CTC.
    const TransducerHead* transducer() const { return transducer_ ? &*transducer_ : nullptr; }

   private:
    int width_;
    std::optional<Linear> ctc_;  // [d_model, n_vocab + 1], the blank is the last
    std::optional<TransducerHead> transducer_;
};

/// A conformer encoder and its head.
class ConformerModel : public Model {
   public:
    ConformerModel(std::unique_ptr<WeightStore> store, const ConformerConfig& config);
    std::unique_ptr<Session> session() const override;

    const ConformerConfig config;
    const MelFrontend frontend;
    const ConformerEncoder encoder;
    /// The type that the encoder's matrices have in the file.
    ggml_type weight_type() const { return encoder.blocks().front().weight_type(); }

    const ConformerHead head;
};

}  // namespace rustasr
