// Greedy decoding of 30 s of audio with the transducers' released sizes: random weights in F16, as files keep
// them, with biases that make about as many tokens and blanks as speech has.
//
//     transducer_decode [threads = 2] [repetitions = 20]
//
// Best of the repetitions, for one utterance and for eight together. With one thread the clock is the
// thread's CPU time, which a busy machine disturbs less. RUSTASR_KERNELS=off measures ggml's own operations
// in place of kernels/recurrent.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "clock.h"
#include "decode/transducer.h"
#include "toy_transducer.h"

using namespace rustasr;
using namespace rustasr::test;

namespace {

struct Release {
    const char* name;
    ToySizes sizes;
    int n_frames;  // 30 s
};

ToySizes sizes(int n_vocab, int layers, int hidden, std::vector<int32_t> durations, float blank_bias,
               std::vector<float> duration_bias) {
    ToySizes s;
    s.n_vocab = n_vocab;
    s.pred_layers = layers;
    s.pred_hidden = hidden;
    s.joint_hidden = hidden;
    s.d_model = 64;  // joint.enc is part of the encoder's graph
    s.durations = std::move(durations);
    s.type = GGML_TYPE_F16;
    s.spread = 0.1f;
    s.max_symbols = s.durations.empty() ? 2 : 10;  // an RNN-T without training would stay on a frame for long
    s.blank_bias = blank_bias;
    s.duration_bias = std::move(duration_bias);
    return s;
}

void measure(const Release& release, int threads, int repetitions) {
    ToyTransducer toy(release.sizes, 1, threads);
    toy.make_frames(std::vector<int>(8, release.n_frames), 1, 0.2f);
    Transducer transducer(toy.backend, toy.head);
    std::printf("%s\n", release.name);
    for (const int n_utterances : {1, 8}) {
        std::vector<int> utterances;
        for (int i = 0; i < n_utterances; ++i) utterances.push_back(i);
        double best = std::numeric_limits<double>::infinity();
        size_t n_tokens = 0;
        for (int i = 0; i < repetitions; ++i) {
            const double begin = seconds(threads);
            const std::vector<Recognized> found = transducer.recognize(toy.frames, utterances, {});
            best = std::min(best, seconds(threads) - begin);
            n_tokens = 0;
            for (const Recognized& r : found) n_tokens += r.tokens.size();
        }
        const auto n = static_cast<double>(n_utterances);
        std::printf("  %d together: %6.1f ms each, %.0f tokens\n", n_utterances, 1e3 * best / n,
                    static_cast<double>(n_tokens) / n);
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
    const int repetitions = argc > 2 ? std::atoi(argv[2]) : 20;
    const std::vector<Release> releases = {
        {"parakeet-tdt-0.6b-v3", sizes(8192, 2, 640, {0, 1, 2, 3, 4}, 0, {-2, 0, 1, 1, 0}), 375},
        {"gigaam-v3-e2e-rnnt", sizes(1024, 1, 320, {}, 3.1f, {}), 750},
        {"parakeet-rnnt-0.6b", sizes(1024, 2, 640, {}, 4.5f, {}), 375},
    };
    for (const Release& release : releases) measure(release, threads, repetitions);
    return 0;
}
