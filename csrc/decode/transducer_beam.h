#pragma once
// Beam search for RNN-T and TDT, frame by frame, hypotheses of the same tokens merged: modified adaptive
// expansion search (Kim et al. 2020, arXiv:2011.02072) without its prefix search, carried over to durations.
// With a wide beam and no bound on the expansions it sums over all alignments.

#include <vector>

#include "decode/recognition.h"
#include "decode/transducer_network.h"

namespace rustasr {

/// frames[i]: [length, J] of utterance i. Utterances are searched together; max_symbols: tokens on one frame.
std::vector<Recognized> transducer_beam(TransducerNetwork& network,
                                        const std::vector<std::vector<float>>& frames, int max_symbols,
                                        const SearchOptions& options);

}  // namespace rustasr
