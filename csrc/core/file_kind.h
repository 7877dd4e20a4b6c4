#pragma once
// What people hand in where a GGUF file is expected, recognised by its first bytes.

#include <cstddef>
#include <cstdint>
#include <string>

namespace rustasr {

/// What a file that is no GGUF is, and what to do with it.
struct FileKind {
    std::string name;    // "a safetensors file"
    std::string advice;  // "Convert it with ..."
};

/// Never fails: an unknown file is described by its first bytes. Reads at most the first 1024 bytes.
FileKind recognise_foreign_file(const uint8_t* data, size_t size);

}  // namespace rustasr
