#include "core/text.h"

#include <cstdint>
#include <cstring>

namespace rustasr {

namespace {

// Bytes of the code point that starts at text[pos], or 0 when no valid one does. Table 3-7 of the Unicode
// standard.
size_t utf8_length(std::string_view text, size_t pos) {
    const auto byte = [&](size_t i) -> unsigned {
        return pos + i < text.size() ? static_cast<unsigned char>(text[pos + i]) : 0;  // 0 continues nothing
    };
    const auto in = [](unsigned b, unsigned low, unsigned high) { return b >= low && b <= high; };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    if (in(first, 0xC2, 0xDF)) return in(byte(1), 0x80, 0xBF) ? 2 : 0;
    if (in(first, 0xE0, 0xEF)) {
        const unsigned low = first == 0xE0 ? 0xA0 : 0x80;   // no overlong forms
        const unsigned high = first == 0xED ? 0x9F : 0xBF;  // no surrogates
        return in(byte(1), low, high) && in(byte(2), 0x80, 0xBF) ? 3 : 0;
    }
    if (in(first, 0xF0, 0xF4)) {
        const unsigned low = first == 0xF0 ? 0x90 : 0x80;
        const unsigned high = first == 0xF4 ? 0x8F : 0xBF;  // nothing above U+10FFFF
        return in(byte(1), low, high) && in(byte(2), 0x80, 0xBF) && in(byte(3), 0x80, 0xBF) ? 4 : 0;
    }
    return 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
    size_t pos = 0;
    while (pos < text.size()) {
        // Tokenizers are megabytes of mostly ASCII: take eight such bytes at a time.
        uint64_t word = 0;
        if (text.size() - pos >= sizeof word) {
            std::memcpy(&word, text.data() + pos, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                pos += sizeof word;
                continue;
            }
        }
        const size_t length = utf8_length(text, pos);
        if (length == 0) return false;
        pos += length;
    }
    return true;
}

std::string in_quotes(std::string_view text, size_t max_bytes) {
    static const char kHex[] = "0123456789abcdef";
    std::string out = "\"";
    size_t pos = 0;
    while (pos < text.size() && pos < max_bytes) {
        const size_t length = utf8_length(text, pos);
        const auto byte = static_cast<unsigned char>(text[pos]);
        const bool control =
            byte < 0x20 || byte == 0x7F ||
            (byte == 0xC2 && length == 2 && static_cast<unsigned char>(text[pos + 1]) < 0xA0);
        if (length == 0 || control || byte == '"' || byte == '\\') {
            for (size_t i = 0; i < (length == 0 ? 1 : length); ++i) {
                const auto b = static_cast<unsigned char>(text[pos + i]);
                out += "\\x";
                out += kHex[b >> 4];
                out += kHex[b & 15];
            }
            pos += length == 0 ? 1 : length;
        } else {
            out.append(text.substr(pos, length));
            pos += length;
        }
    }
    out += '"';
    if (pos < text.size()) out += "... (" + std::to_string(text.size()) + " bytes)";
    return out;
}

}  // namespace rustasr
