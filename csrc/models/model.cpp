#include "models/model.h"

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "ggml.h"

namespace rustasr {
namespace {

using Factory = std::unique_ptr<Model> (*)(std::unique_ptr<WeightStore>);

// The one table of families: general.architecture → constructor.
const std::map<std::string, Factory> kFamilies = {
    {"gigaam", make_gigaam},         {"parakeet", make_parakeet},
    {"whisper", make_whisper},       {"qwen3_asr", make_qwen3_asr},
    {"silero-vad", make_silero_vad}, {"campplus", make_campplus},
    {"wespeaker", make_wespeaker},   {"ge2e", make_ge2e},
    {"pyannet", make_pyannet},
};

std::string family_names() {
    std::string names;
    for (const auto& [name, factory] : kFamilies) names += (names.empty() ? "" : ", ") + name;
    return names;
}

[[noreturn]] void unsupported(const char* call) {
    throw UnsupportedModelError(std::string("this model family has no ") + call);
}

}  // namespace

std::shared_ptr<const Model> Model::load(const std::string& path, const std::string& device, int n_threads) {
    auto file = GgufFile::open(path);
    const std::string architecture = file->str("general.architecture");
    const auto family = kFamilies.find(architecture);
    if (family == kFamilies.end()) {
        throw UnsupportedModelError(path + ": key general.architecture: expected one of " + family_names() +
                                    ", found " + in_quotes(architecture));
    }
    if (n_threads <= 0) n_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    auto model = family->second(std::make_unique<WeightStore>(file, find_device(device)));
    model->store_->load(n_threads);
    model->n_threads_ = n_threads;
    return std::shared_ptr<const Model>(std::move(model));
}

Matrix Session::features(const float* pcm, int64_t n_samples, bool pad_left, bool pad_right) {
    if (!frontend_) unsupported("log-mel front end");
    const int64_t n_frames = frontend_->n_frames(n_samples, pad_left, pad_right),
                  n_mels = frontend_->config().n_mels;
    Matrix log_mel{n_frames, n_mels, std::vector<float>(static_cast<size_t>(n_frames * n_mels))};
    backend_.parallel([&](int ith, int nth) {
        frontend_->compute(pcm, n_samples, pad_left, n_frames, log_mel.values.data(), ith, nth);
    });
    return log_mel;
}

std::map<std::string, Matrix> collect_taps(const Graph& graph, const std::vector<std::string>& names) {
    std::map<std::string, Matrix> result;
    for (const auto& [name, tensor] : graph.taps()) {
        Matrix matrix{ggml_nrows(tensor), tensor->ne[0],
                      std::vector<float>(static_cast<size_t>(ggml_nelements(tensor)))};
        read(tensor, matrix.values.data());
        result[name] = std::move(matrix);
    }
    for (const std::string& name : names) {
        if (!result.count(name)) throw OptionError("no intermediate named \"" + name + "\"");
    }
    return result;
}

std::shared_ptr<Encoded> Session::encode(const std::vector<MatrixView>&) { unsupported("encoder"); }
std::map<std::string, Matrix> Session::encode_taps(const std::vector<MatrixView>&,
                                                   const std::vector<std::string>&) {
    unsupported("encoder intermediates");
}
Matrix Session::detect_language(Encoded&) { unsupported("language detection"); }
std::vector<Decoded> Session::decode(Encoded&, const std::vector<int>&,
                                     const std::vector<std::vector<int32_t>>&, const DecodeOptions&,
                                     const OnToken&) {
    unsupported("autoregressive decoder");
}
std::vector<Matrix> Session::classify(Encoded&, const std::vector<int>&,
                                      const std::vector<std::vector<int32_t>>&,
                                      const std::vector<std::vector<int>>&) {
    unsupported("classes");
}
std::vector<Recognized> Session::recognize(Encoded&, const std::vector<int>&, const SearchOptions&) {
    unsupported("CTC or transducer head");
}
std::vector<TokenAlignment> Session::align(Encoded&, const std::vector<int>&,
                                           const std::vector<std::vector<int32_t>>&,
                                           const std::vector<std::vector<int32_t>>&,
                                           const std::vector<int>&) {
    unsupported("cross-attention alignment");
}
std::map<std::string, Matrix> Session::decode_taps(Encoded&, int, const std::vector<int32_t>&,
                                                   const std::vector<std::string>&) {
    unsupported("decoder intermediates");
}
std::vector<float> Session::speech_probabilities(const float*, int64_t) { unsupported("detector of speech"); }
void Session::reset() { unsupported("state between calls"); }
Matrix Session::speaker_embeddings(const std::vector<SamplesView>&) { unsupported("speaker embeddings"); }
Matrix Session::speaker_classes(const std::vector<SamplesView>&) { unsupported("classes of speakers"); }

}  // namespace rustasr
