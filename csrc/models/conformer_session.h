#pragma once
// What GigaAM and Parakeet share behind their networks: the model with its head, and the session that runs
// it.

#include <memory>
#include <string>

#include "models/model.h"
#include "nn/conformer.h"

namespace rustasr {

/// A conformer encoder and a head: CTC, or a transducer.
class ConformerModel : public Model {
   public:
    ConformerModel(std::unique_ptr<WeightStore> store, const ConformerConfig& config);
    std::unique_ptr<Session> session() const override;

    const ConformerConfig config;
    const MelFrontend frontend;
    const ConformerEncoder encoder;
    /// The type that the encoder's matrices have in the file.
    ggml_type weight_type() const { return encoder.blocks().front().weight_type(); }

    const int n_classes;  // of the CTC head: the vocabulary and the blank, which is the last
    const Linear head;    // [d_model, n_classes]
};

}  // namespace rustasr
