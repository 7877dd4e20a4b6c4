#include "nn/transducer.h"

#include <string>

#include "core/error.h"

namespace rustasr {

TransducerConfig TransducerConfig::read(const GgufFile& file, int d_model) {
    const auto fail = [&](const std::string& key, const std::string& expected, const std::string& found) {
        throw ModelFileError(file.path() + ": key " + key + ": expected " + expected + ", found " + found);
    };
    const std::string type = file.str("head.type");
    if (type != "rnnt" && type != "tdt") fail("head.type", "\"ctc\", \"rnnt\" or \"tdt\"", in_quotes(type));
    const auto size = [&](const char* key, uint32_t max) { return static_cast<int>(file.u32(key, 1, max)); };
    TransducerConfig c{};
    c.n_vocab = size("head.n_vocab", 1 << 20);
    c.blank_id = size("head.blank_id", 1 << 20);
    if (c.blank_id != c.n_vocab)
        fail("head.blank_id", std::to_string(c.n_vocab) + " as head.n_vocab", std::to_string(c.blank_id));
    c.pred_layers = size("head.pred_layers", 16);
    c.pred_hidden = size("head.pred_hidden", 8192);
    c.joint_hidden = size("head.joint_hidden", 8192);
    c.max_symbols = size("head.max_symbols", 1000);
    c.d_model = d_model;
    if (type == "rnnt") return c;

    c.durations = file.i32_array("head.durations");
    if (c.durations.empty() || c.durations.size() > 64)
        fail("head.durations", "1 to 64 durations", std::to_string(c.durations.size()));
    for (int32_t duration : c.durations) {
        if (duration < 0 || duration > 1000)
            fail("head.durations", "durations of 0 to 1000 frames", std::to_string(duration));
    }
    return c;
}

TransducerHead::TransducerHead(Weights root, const TransducerConfig& config)
    : config(config),
      embed_(root / "prediction" / "embed", config.pred_hidden, config.n_tokens()),
      enc_(root / "joint" / "enc", config.d_model, config.joint_hidden),
      pred_(root / "joint" / "pred", config.pred_hidden, config.joint_hidden),
      out_(root / "joint" / "out", config.joint_hidden, config.n_classes()) {
    for (int i = 0; i < config.pred_layers; ++i)
        lstm_.emplace_back(root / "prediction" / "lstm" / i, config.pred_hidden, config.pred_hidden);
}

ggml_tensor* TransducerHead::predict(Graph& graph, ggml_tensor* tokens,
                                     std::vector<ggml_tensor*>& states) const {
    ggml_tensor* x = embed_(graph, tokens);  // [P, m]
    for (size_t i = 0; i < lstm_.size(); ++i) {
        states[i] = lstm_[i](graph, x, states[i]);
        x = ggml_view_2d(graph.ctx(), states[i], config.pred_hidden, tokens->ne[0], states[i]->nb[1], 0);
    }
    return pred_(graph, x);
}

}  // namespace rustasr
