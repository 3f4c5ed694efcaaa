// Text that others wrote, before it goes into a message or a report.
#pragma once

#include <string_view>

namespace fairgptq {

/// Whether the bytes are well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF).
bool is_utf8(std::string_view text);

/// Well-formed, and without control characters: fit for one line of a message.
bool is_printable(std::string_view text);

}  // namespace fairgptq
