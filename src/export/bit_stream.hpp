// Codes of a few bits, end to end in 32-bit words, the first in the lowest bits: how both quantized formats store them.
#pragma once

#include <cstdint>

namespace fairgptq {

inline std::int64_t words_for(std::int64_t codes, int bits) {
    return (codes * bits + 31) / 32;
}

/// Packs `count` codes that lie `code_stride` apart into words that lie `word_stride` apart. A code may straddle two
/// words; what the last word has left over is zero.
inline void pack_words(const std::uint8_t* codes, std::int64_t code_stride, std::int64_t count, int bits,
                       std::uint32_t* words, std::int64_t word_stride) {
    std::uint64_t pending = 0;
    int filled = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        pending |= static_cast<std::uint64_t>(codes[i * code_stride]) << static_cast<unsigned>(filled);
        filled += bits;
        if (filled >= 32) {
            *words = static_cast<std::uint32_t>(pending);
            words += word_stride;
            pending >>= 32U;
            filled -= 32;
        }
    }
    if (filled > 0) *words = static_cast<std::uint32_t>(pending);
}

}  // namespace fairgptq
