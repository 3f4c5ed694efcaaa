#include "support/utf8.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace fairgptq {

bool is_utf8(std::string_view text) {
    for (std::size_t place = 0; place < text.size();) {
        const auto byte = [&](std::size_t ahead) { return static_cast<unsigned char>(text[place + ahead]); };
        const unsigned first = byte(0);
        const std::size_t length = first < 0x80   ? 1
                                   : first < 0xc0 ? 0
                                   : first < 0xe0 ? 2
                                   : first < 0xf0 ? 3
                                   : first < 0xf8 ? 4
                                                  : 0;
        if (length == 0 || place + length > text.size()) return false;
        std::uint32_t code = length == 1 ? first : first & (0x7fU >> length);
        for (std::size_t ahead = 1; ahead < length; ++ahead) {
            if ((byte(ahead) & 0xc0U) != 0x80U) return false;
            code = code << 6U | (byte(ahead) & 0x3fU);
        }
        const std::uint32_t smallest = length == 1 ? 0 : length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
        if (code < smallest || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
        place += length;
    }
    return true;
}

bool is_printable(std::string_view text) {
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
    return is_utf8(text) && std::none_of(text.begin(), text.end(), control);
}

}  // namespace fairgptq
