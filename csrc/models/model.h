#pragma once
// What every family offers to the bindings: an immutable Model, shared between threads, and a Session per
// thread that computes. A family implements the calls its networks have; the others refuse with
// UnsupportedModelError.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/gguf.h"
#include "core/graph.h"
#include "core/weights.h"
#include "decode/alignment.h"
#include "decode/autoregressive.h"
#include "decode/recognition.h"
#include "frontend/mel.h"

namespace rustasr {

/// A matrix of floats on the host, rows one after the other.
struct Matrix {
    int64_t rows = 0;
    int64_t columns = 0;
    std::vector<float> values;
};

/// A view of the caller's rows: [rows, columns].
struct MatrixView {
    const float* values;
    int64_t rows;
    int64_t columns;
};

/// A view of the caller's samples.
struct SamplesView {
    const float* values;
    int64_t n;
};

/// The encoder's result for a batch; it stays on the device.
class Encoded {
   public:
    virtual ~Encoded() = default;
    virtual int batch() const = 0;
    /// Frames of each utterance.
    virtual std::vector<int> lengths() const = 0;
};

class Session {
   public:
    virtual ~Session() = default;

    int threads() const { return backend_.n_threads(); }
    /// From any thread: the running call throws Cancelled.
    void cancel() { backend_.cancel(); }
    void forget_cancel() { backend_.forget_cancel(); }

    /// PCM → raw log-mel [T, n_mels]. Without padding on a side, frames there start inside the samples, so
    /// that a recording may be processed in blocks.
    Matrix features(const float* pcm, int64_t n_samples, bool pad_left, bool pad_right);

    virtual std::shared_ptr<Encoded> encode(const std::vector<MatrixView>& features);
    /// Named intermediates of the encoder, for comparison with the official implementation.
    virtual std::map<std::string, Matrix> encode_taps(const std::vector<MatrixView>& features,
                                                      const std::vector<std::string>& names);
    /// Probabilities [batch, n_languages].
    virtual Matrix detect_language(Encoded& encoded);
    /// prompts[i] belongs to window windows[i] of the batch.
    virtual std::vector<Decoded> decode(Encoded& encoded, const std::vector<int>& windows,
                                        const std::vector<std::vector<int32_t>>& prompts,
                                        const DecodeOptions& options, const OnToken& on_token);
    /// The classes of an aligner: logits [positions[i], n_classes] of the given places of prompts[i].
    virtual std::vector<Matrix> classify(Encoded& encoded, const std::vector<int>& windows,
                                         const std::vector<std::vector<int32_t>>& prompts,
                                         const std::vector<std::vector<int>>& positions);
    /// Searches in the frames of the given utterances, with a CTC or transducer head.
    virtual std::vector<Recognized> recognize(Encoded& encoded, const std::vector<int>& utterances,
                                              const SearchOptions& options);
    /// text[i]: the text tokens of window windows[i]; prefix[i]: what stands before them, without
    /// <|notimestamps|>; n_frames[i]: mel frames of the window that hold audio.
    virtual std::vector<TokenAlignment> align(Encoded& encoded, const std::vector<int>& windows,
                                              const std::vector<std::vector<int32_t>>& text,
                                              const std::vector<std::vector<int32_t>>& prefix,
                                              const std::vector<int>& n_frames);
    /// Named intermediates of the decoder on given tokens.
    virtual std::map<std::string, Matrix> decode_taps(Encoded& encoded, int window,
                                                      const std::vector<int32_t>& tokens,
                                                      const std::vector<std::string>& names);
    /// A detector of speech: one probability for every frame of the samples, the last one filled with zeros.
    /// Continues where the last call ended; an exception leaves that place as it was.
    virtual std::vector<float> speech_probabilities(const float* pcm, int64_t n_samples);
    /// A new recording begins.
    virtual void reset();

    /// One vector of length 1 per piece of speech: [pieces, n_dims].
    virtual Matrix speaker_embeddings(const std::vector<SamplesView>& pieces);

    /// Who of a few speakers talks in each frame of windows, all of the length that the network has:
    /// logarithms of the probabilities of its classes, [windows · frames, n_classes].
    virtual Matrix speaker_classes(const std::vector<SamplesView>& windows);

   protected:
    Session(ggml_backend_dev_t device, int n_threads) : backend_(device, n_threads) {}
    Session(ggml_backend_dev_t device, int n_threads, const MelFrontend& frontend)
        : backend_(device, n_threads), frontend_(&frontend) {}

    Backend backend_;

   private:
    const MelFrontend* frontend_ = nullptr;  // null where samples enter the network as they are
};

class Model : public std::enable_shared_from_this<Model> {
   public:
    virtual ~Model() = default;
    /// Opens, checks and loads a GGUF file. n_threads 0: one per core. Throws ModelFileError,
    /// UnsupportedModelError, DeviceError.
    static std::shared_ptr<const Model> load(const std::string& path, const std::string& device,
                                             int n_threads);

    /// The session keeps the model alive.
    virtual std::unique_ptr<Session> session() const = 0;

    const GgufFile& file() const { return store_->file(); }
    std::string device_name() const { return ggml_backend_dev_name(store_->device()); }
    size_t nbytes() const { return store_->nbytes(); }
    int threads() const { return n_threads_; }

   protected:
    explicit Model(std::unique_ptr<WeightStore> store) : store_(std::move(store)) {}

    std::unique_ptr<WeightStore> store_;
    int n_threads_ = 1;
};

/// The intermediates that a graph kept. Throws OptionError for a name that the network has not.
std::map<std::string, Matrix> collect_taps(const Graph& graph, const std::vector<std::string>& names);

std::unique_ptr<Model> make_whisper(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_gigaam(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_parakeet(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_qwen3_asr(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_silero_vad(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_campplus(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_wespeaker(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_pyannet(std::unique_ptr<WeightStore> store);
std::unique_ptr<Model> make_ge2e(std::unique_ptr<WeightStore> store);

}  // namespace rustasr
