#pragma once
// Text of unknown origin: is it UTF-8, and how to show it in a message.

#include <string>
#include <string_view>

namespace rustasr {

/// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

/// The text in double quotes, always valid UTF-8 and on one line: control characters, quotes, backslashes and
/// bytes that are no UTF-8 are escaped as \xNN; beyond `max_bytes` it is cut and the full length is given.
std::string in_quotes(std::string_view text, size_t max_bytes = 300);

}  // namespace rustasr
