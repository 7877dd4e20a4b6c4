#include "core/file_kind.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <string_view>

#include "core/text.h"

namespace rustasr {

namespace {

const char kConvert[] =
    "Convert it to GGUF with `rustasr convert`, or give it to `rustasr transcribe --model`.";
const char kConvertFolder[] = "Convert the folder that holds it to GGUF with `rustasr convert`.";
const char kUnpack[] = "Unpack it first.";
const char kDownload[] = "Download the model again.";
const char kSwapped[] = "Give the model first and the audio where audio is expected.";

struct Signature {
    size_t offset;
    std::string_view bytes;
    const char* name;
    const char* advice;
};

using namespace std::string_view_literals;

const Signature kSignatures[] = {
    {0, "lmgg"sv, "a legacy ggml file (magic \"ggml\", as whisper.cpp's .bin models have)", kConvert},
    {0, "fmgg"sv, "a legacy ggml file (magic \"ggmf\")",
     "Convert the original model with `rustasr convert`."},
    {0, "tjgg"sv, "a legacy ggml file (magic \"ggjt\")",
     "Convert the original model with `rustasr convert`."},
    {0, "algg"sv, "a legacy ggml adapter (magic \"ggla\")",
     "Adapters are not supported: give the whole model."},
    {0, "FUGG"sv, "a byte-swapped GGUF file", "Convert the model again on a little-endian machine."},
    {6, "WhisperSpec\0"sv, "a CTranslate2 model.bin", kConvertFolder},
    {0, "PK\x03\x04"sv, "a zip archive (a PyTorch .pt checkpoint is one)", kConvert},
    {0, "PK\x05\x06"sv, "an empty zip archive", kDownload},
    {0, "\x80\x02"sv, "a Python pickle (an old PyTorch checkpoint)",
     "Save it again as safetensors or as a current .pt and convert that with `rustasr convert`."},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file", "Convert the original PyTorch model with `rustasr convert`."},
    {0, "\x1f\x8b"sv, "a gzip archive", kUnpack},
    {0, "\x28\xb5\x2f\xfd"sv, "a zstd archive", kUnpack},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "an xz archive", kUnpack},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive", kUnpack},
    {0, "BZh"sv, "a bzip2 archive", kUnpack},
    {257, "ustar"sv, "a tar archive (NVIDIA's .nemo files are tar)", kUnpack},
    {0, "version https://git-lfs.github.com/spec/"sv, "a Git LFS pointer, not the model itself",
     "Fetch the model with `git lfs pull`, or download it from its page."},
    {0, "RIFF"sv, "a RIFF file (WAV audio)", kSwapped},
    {0, "fLaC"sv, "FLAC audio", kSwapped},
    {0, "OggS"sv, "Ogg audio", kSwapped},
    {0, "ID3"sv, "MP3 audio", kSwapped},
};

bool starts_with_ignoring_case(std::string_view text, std::string_view lower_case_prefix) {
    if (text.size() < lower_case_prefix.size()) return false;
    return std::equal(lower_case_prefix.begin(), lower_case_prefix.end(), text.begin(), [](char a, char b) {
        return a == static_cast<char>(std::tolower(static_cast<unsigned char>(b)));
    });
}

// A u64 header length, then a JSON object of about that length.
bool is_safetensors(std::string_view head, size_t size) {
    if (head.size() < 9) return false;
    uint64_t header = 0;
    for (int i = 7; i >= 0; --i)
        header = header << 8 | static_cast<unsigned char>(head[static_cast<size_t>(i)]);
    return head[8] == '{' && header >= 2 && (header <= size || header < uint64_t{100} << 20);
}

}  // namespace

FileKind recognise_foreign_file(const uint8_t* data, size_t size) {
    if (size == 0) return {"an empty file (0 bytes)", kDownload};
    const std::string_view head(reinterpret_cast<const char*>(data), std::min<size_t>(size, 1024));
    for (const Signature& signature : kSignatures) {
        const bool long_enough = head.size() >= signature.offset + signature.bytes.size();
        if (long_enough && head.substr(signature.offset, signature.bytes.size()) == signature.bytes) {
            return {signature.name, signature.advice};
        }
    }
    if (is_safetensors(head, size)) return {"a safetensors file", kConvertFolder};
    if (std::all_of(head.begin(), head.end(), [](char c) { return c == '\0'; })) {
        return {"zero bytes (an interrupted download or copy)", kDownload};
    }

    std::string_view text = head;
    if (text.substr(0, 3) == "\xef\xbb\xbf"sv) text.remove_prefix(3);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0)
        text.remove_prefix(1);
    if (starts_with_ignoring_case(text, "<!doctype html") || starts_with_ignoring_case(text, "<html")) {
        return {"an HTML page (a login or error page instead of the download)", kDownload};
    }
    if (starts_with_ignoring_case(text, "<?xml"))
        return {"an XML text (an error answer of a server)", kDownload};
    if (!text.empty() && text.front() == '{') {
        return {"a JSON text", "Give the model file or the folder that holds it, not its configuration."};
    }
    return {"a file that starts with " + in_quotes(head.substr(0, 8)),
            "Give a GGUF file made by `rustasr convert`, or the folder of the original model to convert."};
}

}  // namespace rustasr
