#pragma once
// Phrases that a beam search shall prefer. Every token of a phrase counts as it is matched, so that a
// hypothesis survives long enough to be completed; where the match breaks off, what is no whole phrase is
// taken back. Matches are those of a left-to-right scan that takes the longest phrase at each place: a
// finished sequence counts the tokens that this scan covers.

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace rustasr {

class Hotwords {
   public:
    static constexpr int32_t kNone = 0;  // the state in which nothing is matched

    /// After a token: the new state, and what the number of matched tokens changes by.
    struct Step {
        int32_t state;
        int matched;
    };

    explicit Hotwords(const std::vector<std::vector<int32_t>>& phrases);

    Step next(int32_t state, int32_t token) const;
    /// What the end of the sequence takes back (0 or less).
    int end(int32_t state) const;
    /// The tokens that a match in this state may go on with.
    const std::vector<int32_t>& continuations(int32_t state) const {
        return nodes_[index(state)].next_tokens;
    }

   private:
    struct Node {
        int32_t parent, token;
        int depth;
        int whole;  // tokens from the start of the match that are a phrase: the longest such
        std::vector<int32_t> next_tokens;
    };
    static size_t index(int32_t state) { return static_cast<size_t>(state); }
    int32_t child(int32_t state, int32_t token) const;
    /// Gives up the match of `state`: keeps its longest phrase and scans on behind that, or behind its first
    /// token.
    Step give_up(int32_t state) const;

    std::vector<Node> nodes_;  // a trie, the root first
    std::map<std::pair<int32_t, int32_t>, int32_t> children_;
};

}  // namespace rustasr
