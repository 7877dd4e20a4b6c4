#include "decode/hotwords.h"

#include <algorithm>

namespace rustasr {

Hotwords::Hotwords(const std::vector<std::vector<int32_t>>& phrases) {
    nodes_.push_back({-1, -1, 0, 0, {}});
    for (const std::vector<int32_t>& phrase : phrases) {
        int32_t state = kNone;
        for (int32_t token : phrase) {
            const auto next = static_cast<int32_t>(nodes_.size());
            const auto [at, is_new] = children_.try_emplace({state, token}, next);
            if (is_new) {
                nodes_.push_back({state, token, nodes_[index(state)].depth + 1, 0, {}});
                nodes_[index(state)].next_tokens.push_back(token);
            }
            state = at->second;
        }
        nodes_[index(state)].whole = nodes_[index(state)].depth;
    }
    // Parents come before their children.
    for (Node& node : nodes_) {
        if (node.parent >= 0 && node.whole == 0) node.whole = nodes_[index(node.parent)].whole;
    }
}

int32_t Hotwords::child(int32_t state, int32_t token) const {
    const auto found = children_.find({state, token});
    return found == children_.end() ? kNone : found->second;
}

Hotwords::Step Hotwords::next(int32_t state, int32_t token) const {
    int matched = 0;
    int32_t next = child(state, token);
    while (next == kNone && state != kNone) {
        const Step step = give_up(state);
        matched += step.matched;
        state = step.state;
        next = child(state, token);
    }
    if (next == kNone) return {kNone, matched};
    const bool complete = nodes_[index(next)].next_tokens.empty();
    return {complete ? kNone : next, matched + 1};
}

Hotwords::Step Hotwords::give_up(int32_t state) const {
    const Node& node = nodes_[index(state)];
    std::vector<int32_t> tokens;  // of the match
    for (int32_t at = state; at != kNone; at = nodes_[index(at)].parent)
        tokens.push_back(nodes_[index(at)].token);
    std::reverse(tokens.begin(), tokens.end());
    Step step = {kNone, node.whole - node.depth};
    for (auto i = static_cast<size_t>(std::max(node.whole, 1)); i < tokens.size(); ++i) {
        const Step again = next(step.state, tokens[i]);
        step = {again.state, step.matched + again.matched};
    }
    return step;
}

int Hotwords::end(int32_t state) const {
    int matched = 0;
    while (state != kNone) {
        const Step step = give_up(state);
        matched += step.matched;
        state = step.state;
    }
    return matched;
}

}  // namespace rustasr
