#include "decode/transducer.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "decode/transducer_beam.h"
#include "kernels/elementwise.h"

namespace rustasr {
namespace {

/// The greedy search: what NeMo calls label looping (transducer_decoding/tdt_label_looping.py, NeMo 3.0.0),
/// which is also gigaam/decoding.py's loop over frames.
class GreedySearch {
   public:
    GreedySearch(TransducerNetwork& network, int max_symbols, const SearchOptions& options)
        : network_(network),
          config_(network.config()),
          max_symbols_(max_symbols),
          suppressed_(options.suppress) {}

    std::vector<Recognized> run(const std::vector<std::vector<float>>& frames);

   private:
    struct Utterance {
        Utterance(const std::vector<float>& frames, int n_frames, PredictionPtr start)
            : frames(frames), n_frames(n_frames), prediction(std::move(start)) {}

        const std::vector<float>& frames;  // [n_frames, J]
        int n_frames;
        PredictionPtr prediction;  // after the last token
        int t = 0;
        int last_t = -1;    // frame of the last token
        int n_symbols = 0;  // tokens on that frame
        bool after_blank = false;
        Recognized result;
    };
    struct Decision {
        int32_t token;
        int duration;
        float logprob;  // of the token
        float path;     // of token and duration
    };

    size_t look_ahead(const Utterance& u, size_t n_searching) const;
    /// Reads on from u.t with the logits of u.t and the next n - 1 frames. True when a token was emitted.
    bool advance(Utterance& u, float* logits, size_t n) const;
    Decision decide(float* logits) const;
    void emit(Utterance& u, const Decision& decision) const;

    TransducerNetwork& network_;
    const TransducerConfig& config_;
    int max_symbols_;
    std::vector<int32_t> suppressed_;
};

std::vector<Recognized> GreedySearch::run(const std::vector<std::vector<float>>& frames) {
    std::vector<Utterance> utterances;
    for (const auto& f : frames) {
        const auto n_frames = static_cast<int>(f.size() / static_cast<size_t>(config_.joint_hidden));
        utterances.emplace_back(f, n_frames, network_.start());
    }
    std::vector<Utterance*> active;
    for (Utterance& u : utterances) active.push_back(&u);
    const auto drop_ended = [](std::vector<Utterance*>& list) {
        list.erase(std::remove_if(list.begin(), list.end(), [](auto* u) { return u->t >= u->n_frames; }),
                   list.end());
    };
    for (drop_ended(active); !active.empty();) {
        for (std::vector<Utterance*> searching = active; !searching.empty(); drop_ended(searching)) {
            std::vector<JointInput> inputs;
            std::vector<size_t> counts;
            for (Utterance* u : searching) {
                counts.push_back(look_ahead(*u, searching.size()));
                for (size_t i = 0; i < counts.back(); ++i) {
                    const size_t frame = static_cast<size_t>(u->t) + i;
                    inputs.push_back({&u->frames[frame * static_cast<size_t>(config_.joint_hidden)],
                                      u->prediction->output.data()});
                }
            }
            float* logits = network_.joint(inputs);
            std::vector<Utterance*> still;
            for (size_t i = 0; i < searching.size(); ++i) {
                if (!advance(*searching[i], logits, counts[i])) still.push_back(searching[i]);
                logits += counts[i] * static_cast<size_t>(config_.n_classes());
            }
            searching = std::move(still);
        }
        drop_ended(active);
        std::vector<PredictionInput> inputs;
        for (const Utterance* u : active) inputs.push_back({u->prediction.get(), u->result.tokens.back()});
        const std::vector<PredictionPtr> next = network_.predict(inputs);
        for (size_t i = 0; i < active.size(); ++i) active[i]->prediction = next[i];
    }
    std::vector<Recognized> results;
    for (Utterance& u : utterances) results.push_back(std::move(u.result));
    return results;
}

// Frames to look at in one product, in the hope that all but the last say blank. On the CPU four columns cost
// 1.5 times one and eight three times (V = 8198, J = 640); a GPU is far from busy with any of these.
size_t GreedySearch::look_ahead(const Utterance& u, size_t n_searching) const {
    const size_t columns = network_.on_cpu() ? 4 : 64;
    // A TDT token is mostly followed by another one, where it says that it ends; an RNN-T's by blanks.
    const bool blanks = !config_.is_tdt() || u.after_blank;
    const size_t wanted = blanks ? std::max<size_t>(1, columns / n_searching) : 1;
    return std::min(wanted, static_cast<size_t>(u.n_frames - u.t));
}

bool GreedySearch::advance(Utterance& u, float* logits, size_t n) const {
    const int begin = u.t, end = begin + static_cast<int>(n);
    while (u.t < end) {
        const Decision decision =
            decide(logits + static_cast<size_t>(u.t - begin) * static_cast<size_t>(config_.n_classes()));
        u.result.score += static_cast<double>(decision.path);
        u.after_blank = decision.token == config_.blank_id;
        if (!u.after_blank) {
            emit(u, decision);
            return true;
        }
        u.t += std::max(decision.duration, 1);
    }
    return false;
}

GreedySearch::Decision GreedySearch::decide(float* logits) const {
    const float normalizer = kernels::log_sum_exp(logits, config_.n_tokens());
    for (int32_t id : suppressed_) logits[id] = -std::numeric_limits<float>::infinity();
    const auto token = static_cast<int32_t>(kernels::argmax(logits, config_.n_tokens()));
    const float logprob = logits[token] - normalizer;
    if (!config_.is_tdt()) return {token, token == config_.blank_id ? 1 : 0, logprob, logprob};

    const float* durations = logits + config_.n_tokens();
    const auto n_durations = static_cast<int64_t>(config_.durations.size());
    const int64_t best = kernels::argmax(durations, n_durations);
    return {token, config_.durations[static_cast<size_t>(best)], logprob,
            logprob + durations[best] - kernels::log_sum_exp(durations, n_durations)};
}

void GreedySearch::emit(Utterance& u, const Decision& decision) const {
    u.result.tokens.push_back(decision.token);
    u.result.frames.push_back(u.t);
    u.result.durations.push_back(config_.is_tdt() ? decision.duration : 1);
    u.result.logprobs.push_back(decision.logprob);
    u.n_symbols = u.last_t == u.t ? u.n_symbols + 1 : 1;
    u.last_t = u.t;
    u.t += decision.duration;
    if (u.last_t == u.t && u.n_symbols >= max_symbols_) ++u.t;
}

}  // namespace

std::vector<Recognized> Transducer::recognize(const EncodedFrames& frames, const std::vector<int>& utterances,
                                              const SearchOptions& options) {
    options.check();
    options.check_ids(network_.config().n_vocab);
    frames.check(utterances);
    if (frames.values->ne[0] != network_.config().joint_hidden) {
        throw OptionError("frames: expected " + std::to_string(network_.config().joint_hidden) +
                          " values each, found " + std::to_string(frames.values->ne[0]));
    }
    std::vector<std::vector<float>> on_host;
    for (int utterance : utterances) on_host.push_back(frames.read(utterance));
    const int max_symbols = options.max_symbols ? options.max_symbols : network_.config().max_symbols;
    if (options.beam_size > 1) return transducer_beam(network_, on_host, max_symbols, options);
    return GreedySearch(network_, max_symbols, options).run(on_host);
}

}  // namespace rustasr
