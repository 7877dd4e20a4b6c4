// The Python module `rustasr._core`: numpy arrays ↔ spans, the GIL, exceptions. It knows no maths and no
// family.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "core/backend.h"
#include "core/error.h"
#include "core/gguf.h"
#include "core/text.h"
#include "ggml.h"
#include "kernels/attention.h"
#include "kernels/q8_matmul.h"
#include "models/model.h"

namespace py = pybind11;

namespace rustasr {
namespace {

using Floats = py::array_t<float>;

// Nothing is converted behind the caller's back: what is not C-contiguous float32 is a TypeError.
const float* float_data(const py::array& array, int ndim, const char* what) {
    if (!py::isinstance<py::array_t<float, 0>>(array) || !(array.flags() & py::array::c_style) ||
        array.ndim() != ndim) {
        throw py::type_error(std::string(what) + ": expected a C-contiguous float32 array of " +
                             std::to_string(ndim) + " dimensions, found " +
                             std::string(py::str(array.dtype())) + " of " + std::to_string(array.ndim()));
    }
    return static_cast<const float*>(array.data());
}

// Moves the values into the array: they are freed with it, not copied.
Floats to_numpy(Matrix matrix) {
    auto* values = new std::vector<float>(std::move(matrix.values));
    py::capsule owner(values, [](void* p) { delete static_cast<std::vector<float>*>(p); });
    return Floats({matrix.rows, matrix.columns}, values->data(), owner);
}

Floats to_numpy(std::vector<float> row) {
    const auto n = static_cast<int64_t>(row.size());
    return to_numpy(Matrix{1, n, std::move(row)}).reshape({n});
}

py::dict to_numpy(std::map<std::string, Matrix> matrices) {
    py::dict result;
    for (auto& [name, matrix] : matrices) result[py::str(name)] = to_numpy(std::move(matrix));
    return result;
}

std::vector<MatrixView> to_views(const std::vector<py::array>& arrays) {
    std::vector<MatrixView> views;
    for (const py::array& array : arrays) {
        const float* data = float_data(array, 2, "features");
        views.push_back({data, array.shape(0), array.shape(1)});
    }
    return views;
}

std::vector<SamplesView> to_samples(const std::vector<py::array>& arrays, const char* what) {
    std::vector<SamplesView> views;
    for (const py::array& array : arrays) views.push_back({float_data(array, 1, what), array.size()});
    return views;
}

py::dict metadata(const GgufFile& file) {
    py::dict result;
    for (const std::string& key : file.keys()) {
        result[py::str(key)] = std::visit([](auto&& value) { return py::cast(value); }, file.value(key));
    }
    return result;
}

ggml_type type_by_name(const std::string& name) {
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q6_K,
                           GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K}) {
        std::string own = ggml_type_name(type);
        for (char& c : own) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        if (name == own) return type;
    }
    throw OptionError("type: expected f32, f16, bf16, q8_0, q6_k, q5_k, q4_k or q4_0, found \"" + name +
                      "\"");
}

int64_t check_blocks(ggml_type type, int64_t k) {
    if (k > 0 && k % ggml_blck_size(type) == 0) return k;
    throw OptionError(std::string("rows of ") + ggml_type_name(type) + ": expected a multiple of " +
                      std::to_string(ggml_blck_size(type)) + " values, found " + std::to_string(k));
}

py::array_t<uint8_t> quantize_rows(const py::array& data, const std::string& type_name) {
    const float* values = float_data(data, 2, "data");
    const ggml_type type = type_by_name(type_name);
    const int64_t n = data.shape(0), k = check_blocks(type, data.shape(1));
    py::array_t<uint8_t> rows({n, static_cast<int64_t>(ggml_row_size(type, k))});
    void* out = rows.mutable_data();
    py::gil_scoped_release release;
    ggml_quantize_chunk(type, values, out, 0, n, k, nullptr);
    return rows;
}

Floats dequantize_rows(const py::array_t<uint8_t, py::array::c_style>& data, const std::string& type_name,
                       int64_t k) {
    const ggml_type type = type_by_name(type_name);
    check_blocks(type, k);
    if (data.ndim() != 2 || data.shape(1) != static_cast<int64_t>(ggml_row_size(type, k))) {
        throw OptionError("data: expected rows of " + std::to_string(ggml_row_size(type, k)) + " bytes");
    }
    Floats values({data.shape(0), k});
    const uint8_t* in = data.data();
    float* out = values.mutable_data();
    const int64_t n = data.shape(0) * k;
    py::gil_scoped_release release;
    if (type == GGML_TYPE_F32) {
        std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
    } else {
        ggml_get_type_traits(type)->to_float(in, out, n);
    }
    return values;
}

py::array read_tensor(const GgufFile& file, const std::string& name) {
    const TensorInfo* tensor = file.find(name);
    if (!tensor) throw ModelFileError(file.path() + ": tensor " + in_quotes(name) + " is missing");
    std::vector<int64_t> shape;
    for (int i = tensor->n_dims; i-- > 0;) shape.push_back(tensor->ne[i]);
    py::dtype dtype("uint8");
    if (tensor->type == GGML_TYPE_F32) {
        dtype = py::dtype("float32");
    } else if (tensor->type == GGML_TYPE_F16) {
        dtype = py::dtype("float16");
    } else {
        shape.back() = static_cast<int64_t>(ggml_row_size(tensor->type, tensor->ne[0]));
    }
    py::array array(dtype, shape);
    std::memcpy(array.mutable_data(), tensor->data, tensor->nbytes);
    return array;
}

// Each exception of the core becomes the class of the same name in rustasr.errors.
void translate(std::exception_ptr pending) {  // NOLINT(performance-unnecessary-value-param): pybind11's type
    const auto raise = [](const char* name, const std::exception& error) {
        py::object type = py::module_::import("rustasr.errors").attr(name);
        PyErr_SetString(type.ptr(), error.what());
    };
    try {
        std::rethrow_exception(pending);
    } catch (const ModelFileError& error) {
        raise("ModelFileError", error);
    } catch (const UnsupportedModelError& error) {
        raise("UnsupportedModelError", error);
    } catch (const DeviceError& error) {
        raise("DeviceError", error);
    } catch (const OptionError& error) {
        raise("OptionError", error);
    } catch (const Cancelled& error) {
        raise("Cancelled", error);
    } catch (const Error& error) {
        raise("TranscriptionError", error);
    }
}

void bind_devices(py::module_& m) {
    py::class_<DeviceInfo>(m, "DeviceInfo")
        .def_readonly("name", &DeviceInfo::name)
        .def_readonly("description", &DeviceInfo::description)
        .def_readonly("type", &DeviceInfo::type)
        .def_readonly("memory_free", &DeviceInfo::memory_free)
        .def_readonly("memory_total", &DeviceInfo::memory_total)
        .def_readonly("features", &DeviceInfo::features);
    m.def("load_backends", &load_backends, py::arg("directory"));
    m.def("devices", &devices);
    m.def("version", [] {
        return std::map<std::string, std::string>{{"rustasr", RUSTASR_VERSION},
                                                  {"ggml", ggml_version()},
                                                  {"matmul", kernels::q8_form()},
                                                  {"attention", kernels::attention_form()}};
    });
}

void bind_files(py::module_& m) {
    py::class_<TensorInfo>(m, "TensorInfo")
        .def_readonly("name", &TensorInfo::name)
        .def_property_readonly("type",
                               [](const TensorInfo& t) {
                                   std::string name = ggml_type_name(t.type);
                                   for (char& c : name)
                                       c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
                                   return name;
                               })
        .def_property_readonly("shape",
                               [](const TensorInfo& t) {
                                   return py::tuple(py::cast(std::vector<int64_t>(t.ne, t.ne + t.n_dims)));
                               })
        .def_readonly("offset", &TensorInfo::offset)
        .def_readonly("nbytes", &TensorInfo::nbytes);
    py::class_<GgufFile, std::shared_ptr<GgufFile>>(m, "GgufFile")
        .def(py::init([](const std::string& path) {
                 return std::const_pointer_cast<GgufFile>(GgufFile::open(path));
             }),
             py::arg("path"))
        .def_property_readonly("path", &GgufFile::path)
        .def_property_readonly("metadata", &metadata)
        .def_property_readonly("tensors", &GgufFile::tensors)
        .def("read", &read_tensor, py::arg("name"));
    m.def("quantize_rows", &quantize_rows, py::arg("data"), py::arg("qtype"));
    m.def("dequantize_rows", &dequantize_rows, py::arg("data"), py::arg("qtype"), py::arg("k"));
    m.def(
        "normalize_log_mel",
        [](const py::array& raw, float peak) {
            const float* data = float_data(raw, 2, "raw");
            Matrix matrix{raw.shape(0), raw.shape(1), std::vector<float>(data, data + raw.size())};
            normalize_log_mel(matrix.values.data(), matrix.values.size(), peak);
            return to_numpy(std::move(matrix));
        },
        py::arg("raw"), py::arg("peak"));
    m.def(
        "normalize_per_feature",
        [](const py::array& raw) {
            const float* data = float_data(raw, 2, "raw");
            Matrix matrix{raw.shape(0), raw.shape(1), std::vector<float>(data, data + raw.size())};
            normalize_per_feature(matrix.values.data(), matrix.rows, matrix.columns);
            return to_numpy(std::move(matrix));
        },
        py::arg("raw"));
    m.def(
        "subtract_mean",
        [](const py::array& raw) {
            const float* data = float_data(raw, 2, "raw");
            Matrix matrix{raw.shape(0), raw.shape(1), std::vector<float>(data, data + raw.size())};
            subtract_mean(matrix.values.data(), matrix.rows, matrix.columns);
            return to_numpy(std::move(matrix));
        },
        py::arg("raw"));
}

const char* finish_name(const Decoded& decoded) {
    switch (decoded.finish) {
        case Finish::Stop:
            return "stop";
        case Finish::Length:
            return "length";
        case Finish::Loop:
            return "loop";
        case Finish::Caller:
            break;
    }
    return "caller";
}

void bind_decoding(py::module_& m) {
    py::class_<DecodeOptions>(m, "DecodeOptions")
        .def(py::init([](float temperature, int beam_size, float patience, bool early_stopping,
                         std::optional<float> length_penalty, int best_of, int max_tokens, uint64_t seed,
                         bool timestamps, float max_initial_timestamp, std::vector<int32_t> suppress,
                         bool suppress_blank, int loop_tokens, int loop_repeats) {
                 DecodeOptions options{temperature,
                                       beam_size,
                                       patience,
                                       early_stopping,
                                       length_penalty,
                                       best_of,
                                       max_tokens,
                                       seed,
                                       timestamps,
                                       max_initial_timestamp,
                                       std::move(suppress),
                                       suppress_blank,
                                       loop_tokens,
                                       loop_repeats};
                 options.check();
                 return options;
             }),
             py::kw_only(), py::arg("temperature") = 0.0f, py::arg("beam_size") = 0,
             py::arg("patience") = 1.0f, py::arg("early_stopping") = true,
             py::arg("length_penalty") = py::none(), py::arg("best_of") = 1, py::arg("max_tokens") = 224,
             py::arg("seed") = 0, py::arg("timestamps") = true, py::arg("max_initial_timestamp") = 1.0f,
             py::arg("suppress") = std::vector<int32_t>{}, py::arg("suppress_blank") = true,
             py::arg("loop_tokens") = 0, py::arg("loop_repeats") = 4);
    py::class_<Decoded>(m, "Decoded")
        .def_readonly("tokens", &Decoded::tokens)
        .def_readonly("logprobs", &Decoded::logprobs)
        .def_readonly("sum_logprob", &Decoded::sum_logprob)
        .def_readonly("avg_logprob", &Decoded::avg_logprob)
        .def_readonly("no_speech_prob", &Decoded::no_speech_prob)
        .def_property_readonly("finish", &finish_name)
        .def_readonly("score", &Decoded::score);
    py::class_<TokenAlignment>(m, "TokenAlignment")
        .def_readonly("probabilities", &TokenAlignment::probabilities)
        .def_readonly("times", &TokenAlignment::times);
    py::class_<SearchOptions>(m, "SearchOptions")
        .def(py::init([](int beam_size, int max_symbols, std::vector<int32_t> suppress,
                         std::vector<std::vector<int32_t>> hotwords, float hotword_boost) {
                 SearchOptions options;
                 options.beam_size = beam_size;
                 options.max_symbols = max_symbols;
                 options.suppress = std::move(suppress);
                 options.hotwords = std::move(hotwords);
                 options.hotword_boost = hotword_boost;
                 options.check();
                 return options;
             }),
             py::kw_only(), py::arg("beam_size") = 1, py::arg("max_symbols") = 0,
             py::arg("suppress") = std::vector<int32_t>{},
             py::arg("hotwords") = std::vector<std::vector<int32_t>>{}, py::arg("hotword_boost") = 1.5f);
    py::class_<Recognized>(m, "Recognized")
        .def_readonly("tokens", &Recognized::tokens)
        .def_readonly("frames", &Recognized::frames)
        .def_readonly("durations", &Recognized::durations)
        .def_readonly("logprobs", &Recognized::logprobs)
        .def_readonly("score", &Recognized::score);
    py::class_<Encoded, std::shared_ptr<Encoded>>(m, "Encoded")
        .def_property_readonly("batch", &Encoded::batch)
        .def_property_readonly("lengths", &Encoded::lengths);
}

void bind_model(py::module_& m) {
    using Release = py::call_guard<py::gil_scoped_release>;
    py::class_<Session>(m, "Session")
        .def_property_readonly("threads", &Session::threads)
        .def("cancel", &Session::cancel, Release())
        .def("forget_cancel", &Session::forget_cancel, Release())
        .def(
            "features",
            [](Session& session, const py::array& pcm, bool pad_left, bool pad_right) {
                const float* samples = float_data(pcm, 1, "pcm");
                const int64_t n_samples = pcm.size();
                Matrix log_mel;
                {
                    py::gil_scoped_release release;
                    log_mel = session.features(samples, n_samples, pad_left, pad_right);
                }
                return to_numpy(std::move(log_mel));
            },
            py::arg("pcm"), py::arg("pad_left") = true, py::arg("pad_right") = true)
        .def(
            "encode",
            [](Session& session, const std::vector<py::array>& features) {
                const std::vector<MatrixView> views = to_views(features);
                py::gil_scoped_release release;
                return session.encode(views);
            },
            py::arg("features"), py::keep_alive<0, 1>())
        .def(
            "encode_taps",
            [](Session& session, const std::vector<py::array>& features,
               const std::vector<std::string>& names) {
                const std::vector<MatrixView> views = to_views(features);
                std::map<std::string, Matrix> taps;
                {
                    py::gil_scoped_release release;
                    taps = session.encode_taps(views, names);
                }
                return to_numpy(std::move(taps));
            },
            py::arg("features"), py::arg("names"))
        .def(
            "detect_language",
            [](Session& session, Encoded& encoded) {
                Matrix probabilities;
                {
                    py::gil_scoped_release release;
                    probabilities = session.detect_language(encoded);
                }
                return to_numpy(std::move(probabilities));
            },
            py::arg("encoded"))
        .def(
            "decode",
            [](Session& session, Encoded& encoded, const std::vector<int>& windows,
               const std::vector<std::vector<int32_t>>& prompts, const DecodeOptions& options,
               const py::object& on_token) {
                const OnToken report = [&](int window, int32_t token, float logprob) {
                    py::gil_scoped_acquire acquire;
                    const py::object answer = on_token(window, token, logprob);
                    return answer.is_none() || answer.cast<bool>();
                };
                const bool wanted = !on_token.is_none();
                py::gil_scoped_release release;
                return session.decode(encoded, windows, prompts, options, wanted ? report : OnToken{});
            },
            py::arg("encoded"), py::arg("windows"), py::arg("prompts"), py::arg("options"),
            py::arg("on_token") = py::none())
        .def(
            "classify",
            [](Session& session, Encoded& encoded, const std::vector<int>& windows,
               const std::vector<std::vector<int32_t>>& prompts,
               const std::vector<std::vector<int>>& positions) {
                std::vector<Matrix> logits;
                {
                    py::gil_scoped_release release;
                    logits = session.classify(encoded, windows, prompts, positions);
                }
                py::list result;
                for (Matrix& matrix : logits) result.append(to_numpy(std::move(matrix)));
                return result;
            },
            py::arg("encoded"), py::arg("windows"), py::arg("prompts"), py::arg("positions"))
        .def("recognize", &Session::recognize, py::arg("encoded"), py::arg("utterances"), py::arg("options"),
             Release())
        .def("align", &Session::align, py::arg("encoded"), py::arg("windows"), py::arg("text"),
             py::arg("prefix"), py::arg("n_frames"), Release())
        .def(
            "decode_taps",
            [](Session& session, Encoded& encoded, int window, const std::vector<int32_t>& tokens,
               const std::vector<std::string>& names) {
                std::map<std::string, Matrix> taps;
                {
                    py::gil_scoped_release release;
                    taps = session.decode_taps(encoded, window, tokens, names);
                }
                return to_numpy(std::move(taps));
            },
            py::arg("encoded"), py::arg("window"), py::arg("tokens"), py::arg("names"))
        .def(
            "speech_probabilities",
            [](Session& session, const py::array& pcm) {
                const float* samples = float_data(pcm, 1, "pcm");
                const int64_t n_samples = pcm.size();
                std::vector<float> probabilities;
                {
                    py::gil_scoped_release release;
                    probabilities = session.speech_probabilities(samples, n_samples);
                }
                return to_numpy(std::move(probabilities));
            },
            py::arg("pcm"))
        .def("reset", &Session::reset, Release())
        .def(
            "speaker_embeddings",
            [](Session& session, const std::vector<py::array>& pieces) {
                const std::vector<SamplesView> views = to_samples(pieces, "pieces");
                Matrix vectors;
                {
                    py::gil_scoped_release release;
                    vectors = session.speaker_embeddings(views);
                }
                return to_numpy(std::move(vectors));
            },
            py::arg("pieces"))
        .def(
            "speaker_classes",
            [](Session& session, const std::vector<py::array>& windows) {
                const std::vector<SamplesView> views = to_samples(windows, "windows");
                Matrix classes;
                {
                    py::gil_scoped_release release;
                    classes = session.speaker_classes(views);
                }
                return to_numpy(std::move(classes));
            },
            py::arg("windows"));

    py::class_<Model, std::shared_ptr<Model>>(m, "Model")
        .def(py::init([](const std::string& path, const std::string& device, int threads) {
                 py::gil_scoped_release release;
                 return std::const_pointer_cast<Model>(Model::load(path, device, threads));
             }),
             py::arg("path"), py::arg("device") = "auto", py::arg("threads") = 0)
        .def_property_readonly("architecture",
                               [](const Model& model) { return model.file().str("general.architecture"); })
        .def_property_readonly("metadata", [](const Model& model) { return metadata(model.file()); })
        .def_property_readonly("device", &Model::device_name)
        .def_property_readonly("path", [](const Model& model) { return model.file().path(); })
        .def_property_readonly("nbytes", &Model::nbytes)
        .def_property_readonly("threads", &Model::threads)
        .def("session", &Model::session, Release());
}

}  // namespace
}  // namespace rustasr

PYBIND11_MODULE(_core, m) {
    m.doc() = "The computing core of rustasr.";
    py::register_exception_translator(&rustasr::translate);
    rustasr::bind_devices(m);
    rustasr::bind_files(m);
    rustasr::bind_decoding(m);
    rustasr::bind_model(m);
}
