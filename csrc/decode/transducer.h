#pragma once
// Searching with a transducer: RNN-T and TDT (token and duration, Xu et al. 2023, arXiv:2304.06795) by one
// loop. An RNN-T is a TDT whose tokens last no frame and whose blank lasts one.

#include <map>
#include <string>
#include <vector>

#include "decode/recognition.h"
#include "decode/transducer_network.h"

namespace rustasr {

class Transducer {
   public:
    Transducer(Backend& backend, const TransducerHead& head) : network_(backend, head) {}

    /// One result per utterance. They are decoded together. Throws OptionError, Cancelled, DeviceError.
    std::vector<Recognized> recognize(const EncodedFrames& frames, const std::vector<int>& utterances,
                                      const SearchOptions& options);

    TransducerNetwork& network() { return network_; }

   private:
    TransducerNetwork network_;
};

}  // namespace rustasr
