#include "decode/autoregressive.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "core/error.h"
#include "decode/likeliest.h"
#include "kernels/elementwise.h"

namespace rustasr {
namespace {

struct Hypothesis {
    std::vector<int32_t> tokens;
    std::vector<float> logprobs;
    double sum = 0;
    bool ended = false;
    int32_t last = -1;  // token, a stop token too

    Hypothesis extended(int32_t token, float logprob, const std::vector<int32_t>& stop_tokens) const {
        Hypothesis next = *this;
        next.extend(token, logprob, stop_tokens);
        return next;
    }
    void extend(int32_t token, float logprob, const std::vector<int32_t>& stop_tokens) {
        logprobs.push_back(logprob);
        sum += logprob;
        ended = std::find(stop_tokens.begin(), stop_tokens.end(), token) != stop_tokens.end();
        last = token;
        if (!ended) tokens.push_back(token);
    }
};

int32_t argmax_or_throw(const float* logits, int64_t n_vocab) {
    const int64_t token = kernels::argmax(logits, n_vocab);
    if (token < 0 || !std::isfinite(logits[token])) {
        throw TranscriptionError(
            "the decoder's logits are not numbers: the model file or the audio is damaged");
    }
    return static_cast<int32_t>(token);
}

/// The search in one window: fed with rows of logits, it says which branches to compute next.
class WindowSearch {
   public:
    WindowSearch(int64_t n_vocab, const std::vector<int32_t>& stop_tokens, const LogitFilter& filter,
                 const DecodeOptions& options)
        : n_vocab_(n_vocab), stop_tokens_(stop_tokens), filter_(filter), options_(options) {
        hypotheses_.resize(1);
    }
    virtual ~WindowSearch() = default;

    /// logits(row) belongs to branch `row`; at first all hypotheses share row 0.
    virtual void advance(const std::function<float*(int)>& logits) = 0;
    /// When no room is left.
    virtual void finish() {}
    virtual const std::vector<Hypothesis>& candidates() const { return hypotheses_; }
    const std::vector<Branch>& branches() const { return branches_; }  // empty: done

    /// Whether every hypothesis that goes on repeats itself.
    bool loops() const {
        return std::all_of(hypotheses_.begin(), hypotheses_.end(), [this](const Hypothesis& h) {
            return h.ended || ends_in_loop(h.tokens, options_.loop_tokens, options_.loop_repeats);
        });
    }
    /// Tells of the newest token, with a single row.
    bool report(const OnToken& on_token, int window) const {
        return on_token(window, hypotheses_[0].last, hypotheses_[0].logprobs.back());
    }

    Decoded best() const {
        const std::vector<Hypothesis>& all = candidates();
        const auto ranked = std::max_element(
            all.begin(), all.end(), [this](const auto& a, const auto& b) { return score(a) < score(b); });
        Decoded decoded;
        decoded.tokens = ranked->tokens;
        decoded.logprobs = ranked->logprobs;
        decoded.sum_logprob = ranked->sum;
        decoded.avg_logprob = ranked->sum / static_cast<double>(ranked->tokens.size() + 1);
        decoded.score = score(*ranked);
        return decoded;
    }

   protected:
    double score(const Hypothesis& hypothesis) const {
        const double length = static_cast<double>(std::max<size_t>(1, hypothesis.tokens.size()));
        // Wu et al. 2016, arXiv:1609.08144, equation 14.
        const double penalty =
            options_.length_penalty ? std::pow((5 + length) / 6, *options_.length_penalty) : length;
        return hypothesis.sum / penalty;
    }

    int64_t n_vocab_;
    const std::vector<int32_t>& stop_tokens_;
    const LogitFilter& filter_;
    const DecodeOptions& options_;
    std::vector<Hypothesis> hypotheses_;
    std::vector<Branch> branches_;
};

/// temperature 0: the likeliest token; above: best_of independent samples.
class SampleSearch : public WindowSearch {
   public:
    SampleSearch(int64_t n_vocab, const std::vector<int32_t>& stop_tokens, const LogitFilter& filter,
                 const DecodeOptions& options, uint64_t stream)
        : WindowSearch(n_vocab, stop_tokens, filter, options),
          random_(options.seed * 0x9E3779B97F4A7C15u + stream) {
        hypotheses_.resize(static_cast<size_t>(options.n_rows()));
    }

    void advance(const std::function<float*(int)>& logits) override {
        const bool first = branches_.empty();
        if (first) filter_({}, logits(0));
        for (size_t row = 0; row < hypotheses_.size(); ++row) {
            Hypothesis& hypothesis = hypotheses_[row];
            if (hypothesis.ended) continue;
            float* values = logits(first ? 0 : static_cast<int>(row));
            if (!first) filter_(hypothesis.tokens, values);
            const float normalizer = kernels::log_sum_exp(values, n_vocab_);
            const int32_t token = pick(values);
            hypothesis.extend(token, values[token] - normalizer, stop_tokens_);
        }
        next_branches();
    }

   private:
    int32_t pick(const float* logits) {
        const int32_t likeliest = argmax_or_throw(logits, n_vocab_);
        if (options_.temperature <= 0) return likeliest;
        const float peak = logits[likeliest];
        weights_.resize(static_cast<size_t>(n_vocab_));
        double total = 0;
        for (int64_t i = 0; i < n_vocab_; ++i) {
            total += weights_[i] =
                std::isinf(logits[i]) ? 0.0 : std::exp((logits[i] - peak) / options_.temperature);
        }
        // Not std::uniform_real_distribution: its numbers differ between standard libraries.
        double left = static_cast<double>(random_() >> 11) * 0x1.0p-53 * total;
        int32_t last = likeliest;
        for (int64_t i = 0; i < n_vocab_; ++i) {
            if (weights_[i] == 0) continue;
            last = static_cast<int32_t>(i);
            left -= weights_[i];
            if (left < 0) break;
        }
        return last;
    }

    void next_branches() {
        branches_.clear();
        for (size_t row = 0; row < hypotheses_.size(); ++row) {
            const Hypothesis& h = hypotheses_[row];
            branches_.push_back({static_cast<int>(row), h.last});
        }
        if (std::all_of(hypotheses_.begin(), hypotheses_.end(), [](const auto& h) { return h.ended; })) {
            branches_.clear();
        }
    }

    std::mt19937_64 random_;
    std::vector<double> weights_;
};

class BeamSearch : public WindowSearch {
   public:
    using WindowSearch::WindowSearch;

    void advance(const std::function<float*(int)>& logits) override {
        struct Candidate {
            size_t parent;
            int32_t token;
            float logprob;
            double sum;
        };
        std::vector<Candidate> candidates;
        for (size_t row = 0; row < hypotheses_.size(); ++row) {
            float* values = logits(static_cast<int>(row));
            filter_(hypotheses_[row].tokens, values);
            argmax_or_throw(values, n_vocab_);
            const float normalizer = kernels::log_sum_exp(values, n_vocab_);
            for (int32_t token : likeliest(values, n_vocab_, static_cast<size_t>(options_.beam_size) + 1)) {
                const float logprob = values[token] - normalizer;
                candidates.push_back({row, token, logprob, hypotheses_[row].sum + logprob});
            }
        }
        std::stable_sort(candidates.begin(), candidates.end(),
                         [](const Candidate& a, const Candidate& b) { return a.sum > b.sum; });
        std::vector<Hypothesis> live;
        std::vector<Hypothesis> ended;
        branches_.clear();
        for (const Candidate& c : candidates) {
            Hypothesis next = hypotheses_[c.parent].extended(c.token, c.logprob, stop_tokens_);
            if (next.ended) {
                ended.push_back(std::move(next));
                continue;
            }
            branches_.push_back({static_cast<int>(c.parent), c.token});
            live.push_back(std::move(next));
            if (live.size() == static_cast<size_t>(options_.beam_size)) break;
        }
        hypotheses_ = std::move(live);
        for (Hypothesis& h : ended) keep(std::move(h));
        if (finished_.size() >= pool_size() && (options_.early_stopping || !may_improve())) branches_.clear();
    }

    void finish() override {
        std::stable_sort(hypotheses_.begin(), hypotheses_.end(),
                         [](const Hypothesis& a, const Hypothesis& b) { return a.sum > b.sum; });
        for (const Hypothesis& h : hypotheses_) {
            if (finished_.size() >= static_cast<size_t>(options_.beam_size)) break;
            finished_.push_back(h);
        }
    }

    const std::vector<Hypothesis>& candidates() const override { return finished_; }

   private:
    size_t pool_size() const {
        return static_cast<size_t>(std::max(1L, std::lround(options_.beam_size * options_.patience)));
    }

    void keep(Hypothesis ended) {
        if (finished_.size() < pool_size()) {
            finished_.push_back(std::move(ended));
        } else if (!options_.early_stopping && score(ended) > score(*worst())) {
            *worst() = std::move(ended);
        }
    }

    std::vector<Hypothesis>::iterator worst() {
        return std::min_element(finished_.begin(), finished_.end(),
                                [this](const auto& a, const auto& b) { return score(a) < score(b); });
    }

    /// Whether the likeliest text that goes on is better, so far, than one that has ended.
    bool may_improve() { return !hypotheses_.empty() && score(hypotheses_[0]) > score(*worst()); }

    std::vector<Hypothesis> finished_;
};

std::unique_ptr<WindowSearch> make_search(const StepModel& model, int window,
                                          const std::vector<int32_t>& stop_tokens, const LogitFilter& filter,
                                          const DecodeOptions& options) {
    if (options.temperature <= 0 && options.beam_size > 1) {
        return std::make_unique<BeamSearch>(model.n_vocab(), stop_tokens, filter, options);
    }
    return std::make_unique<SampleSearch>(model.n_vocab(), stop_tokens, filter, options,
                                          static_cast<uint64_t>(window));
}

}  // namespace

void DecodeOptions::check() const {
    const auto fail = [](const std::string& what, double found, const char* expected) {
        throw OptionError(what + ": expected " + expected + ", found " + std::to_string(found));
    };
    if (!(temperature >= 0 && temperature <= 10)) fail("temperature", temperature, "0..10");
    if (beam_size < 0 || beam_size > 32) fail("beam_size", beam_size, "0..32");
    if (best_of < 1 || best_of > 32) fail("best_of", best_of, "1..32");
    if (!(patience > 0 && patience <= 10)) fail("patience", patience, "above 0, at most 10");
    if (length_penalty && !(*length_penalty >= 0 && *length_penalty <= 1))
        fail("length_penalty", *length_penalty, "0..1");
    if (max_tokens < 1) fail("max_tokens", max_tokens, "1 or more");
    if (loop_tokens < 0) fail("loop_tokens", loop_tokens, "0 or more");
    if (loop_repeats < 2) fail("loop_repeats", loop_repeats, "2 or more");
    if (!(max_initial_timestamp >= 0))
        fail("max_initial_timestamp", max_initial_timestamp, "0 or more seconds");
}

bool ends_in_loop(const std::vector<int32_t>& tokens, int n_tokens, int repeats) {
    const auto n = static_cast<int>(tokens.size());
    for (int period = 1; period * repeats <= n; ++period) {
        const int covered = std::max(n_tokens, period * repeats);
        if (covered > n) continue;
        // The last `covered` tokens are periodic when each equals the one a period before it.
        const int32_t* end = tokens.data() + n;
        if (std::equal(end - covered + period, end, end - covered)) return true;
    }
    return false;
}

std::vector<Decoded> search(StepModel& model, int n_windows, const std::vector<int32_t>& stop_tokens,
                            const LogitFilter& filter, const DecodeOptions& options,
                            const OnToken& on_token) {
    if (on_token && options.n_rows() > 1) {
        throw OptionError("on_token: expected one row per window (no beams, best_of 1), found " +
                          std::to_string(options.n_rows()));
    }
    std::vector<std::unique_ptr<WindowSearch>> windows;
    for (int w = 0; w < n_windows; ++w)
        windows.push_back(make_search(model, w, stop_tokens, filter, options));

    std::vector<std::vector<Branch>> branches(windows.size());
    std::vector<Finish> finish(windows.size(), Finish::Length);
    bool any = false;
    const auto take_branches = [&](int w, int n_sampled) {
        const WindowSearch& window = *windows[w];
        branches[w] = window.branches();
        const auto stop = [&](Finish why) {
            branches[w].clear();
            finish[w] = why;
        };
        const bool go_on = !on_token || window.report(on_token, w);
        if (branches[w].empty()) return stop(Finish::Stop);
        if (!go_on) return stop(Finish::Caller);
        if (options.loop_tokens > 0 && window.loops()) return stop(Finish::Loop);
        if (n_sampled >= options.max_tokens || n_sampled >= model.room(w)) return stop(Finish::Length);
        any = true;
    };
    for (int w = 0; w < n_windows; ++w) {
        windows[w]->advance([&](int) { return model.prompt_logits(w); });
        take_branches(w, 1);
    }
    for (int n_sampled = 2; any; ++n_sampled) {
        model.step(branches);
        any = false;
        for (int w = 0; w < n_windows; ++w) {
            if (branches[w].empty()) continue;
            windows[w]->advance([&](int row) { return model.step_logits(w, row); });
            take_branches(w, n_sampled);
        }
    }
    std::vector<Decoded> results;
    for (size_t w = 0; w < windows.size(); ++w) {
        windows[w]->finish();
        results.push_back(windows[w]->best());
        results.back().finish = finish[w];
    }
    return results;
}

}  // namespace rustasr
