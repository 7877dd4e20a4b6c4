// Parakeet: a FastConformer encoder with relative-position attention and a TDT, RNN-T or CTC head. Follows
// nemo/collections/asr/modules/conformer_encoder.py and parts/submodules/{subsampling, conformer_modules,
// multi_head_attention}.py (NeMo 3.0.0). The sizes of tdt-0.6b-v3:
//
//   log-mel [128, T_mel, B], normalised per mel over the window
//     pre_encode.conv.0            3×3 s2, 1 → 256, ReLU              [256, 64, T_mel/2, B]
//     pre_encode.conv.2, conv.3    depthwise 3×3 s2, 1×1, ReLU        [256, 32, T_mel/4, B]
//     pre_encode.conv.5, conv.6    depthwise 3×3 s2, 1×1, ReLU        [256, 16, T, B]
//     pre_encode.out               16·256 → 1024                      [1024, T, B]   T = ⌈T_mel/8⌉: 80 ms
//     × √1024 where conformer.xscaling
//   24 × ConformerBlock                                               [1024, T·B]
//     x + ½ feed_forward1(norm(x))        1024 → 4096, SiLU, → 1024
//     x + self_attn(norm(x))              8 heads of 128, distances, biases u and v
//     x + conv(norm(x))                   1024 → 2048, GLU, depthwise k9 (BatchNorm folded), SiLU, → 1024
//     norm_out(x + ½ feed_forward2(norm(x)))
//   TDT, RNN-T: joint.enc                                             [640, T·B]; 2 LSTMs: nn/transducer.h
//   CTC: head                                                         [n_classes, T·B], log-softmax

#include "core/error.h"
#include "models/conformer_session.h"

namespace rustasr {

std::unique_ptr<Model> make_parakeet(std::unique_ptr<WeightStore> store) {
    const GgufFile& file = store->file();
    const ConformerConfig config = ConformerConfig::read(file);
    if (config.subsampling != SubsamplingKind::DepthwiseStriding) {
        throw ModelFileError(file.path() + ": key conformer.subsampling: Parakeet has dw_striding, found " +
                             in_quotes(file.str("conformer.subsampling")));
    }
    if (config.attention != AttentionKind::RelativePosition) {
        throw ModelFileError(file.path() + ": key conformer.attention: Parakeet has rel_pos, found " +
                             in_quotes(file.str("conformer.attention")));
    }
    return std::make_unique<ConformerModel>(std::move(store), config);
}

}  // namespace rustasr
