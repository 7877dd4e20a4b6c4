// GigaAM: a conformer encoder with rotary attention and a CTC or RNN-T head. Follows gigaam/encoder.py and
// gigaam/decoder.py (GigaAM, 2026-06). v3's sizes:
//
//   log-mel [64, T_mel, B], not normalised
//     pre_encode.conv.0   k5 s2, ReLU                       [768, T_mel/2, B]
//     pre_encode.conv.2   k5 s2, ReLU                       [768, T, B]      T = ⌈T_mel/4⌉: 40 ms a frame
//   16 × ConformerBlock                                     [768, T·B]
//     x + ½ feed_forward1(norm(x))        768 → 3072, SiLU, → 768
//     x + self_attn(norm(x))              16 heads of 48; the input is rotated before q and k are projected
//     x + conv(norm(x))                   768 → 1536, GLU, depthwise k5, LayerNorm, SiLU, → 768
//     norm_out(x + ½ feed_forward2(norm(x)))
//   CTC: head                                               [n_classes, T·B], log-softmax; the blank is last
//   RNN-T: joint.enc                                        [320, T·B], then nn/transducer.h: one LSTM of 320
//
// v2 has two 3×3 convolutions over mels and frames and a linear in place of pre_encode, kernel 31 and a
// BatchNorm (folded); v1 also has Parakeet's attention. The file says which (conformer.*).

#include "core/error.h"
#include "models/conformer_session.h"

namespace rustasr {

std::unique_ptr<Model> make_gigaam(std::unique_ptr<WeightStore> store) {
    const GgufFile& file = store->file();
    const ConformerConfig config = ConformerConfig::read(file);
    if (config.subsampling == SubsamplingKind::DepthwiseStriding) {
        throw ModelFileError(file.path() +
                             ": key conformer.subsampling: GigaAM has conv1d or conv2d, found " +
                             in_quotes(file.str("conformer.subsampling")));
    }
    return std::make_unique<ConformerModel>(std::move(store), config);
}

}  // namespace rustasr
