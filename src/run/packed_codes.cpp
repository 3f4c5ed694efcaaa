#include "run/packed_codes.hpp"

namespace fairgptq {
namespace {

/// Of bits that divide 8.
template <int bits>
void pack_whole_bytes(const std::uint8_t* codes, std::uint8_t* packed, std::int64_t bytes) {
    constexpr int codes_in_byte = 8 / bits;
    for (std::int64_t byte = 0; byte < bytes; ++byte) {
        unsigned value = 0;
        for (int i = 0; i < codes_in_byte; ++i)
            value |= static_cast<unsigned>(codes[byte * codes_in_byte + i]) << (i * bits);
        packed[byte] = static_cast<std::uint8_t>(value);
    }
}

/// Eight codes in three bytes.
void pack_threes(const std::uint8_t* codes, std::uint8_t* packed, std::int64_t bytes) {
    for (std::int64_t byte = 0; byte < bytes; byte += 3, codes += 8) {
        unsigned word = 0;
        for (unsigned i = 0; i < 8; ++i)
            word |= static_cast<unsigned>(codes[i]) << (i * 3);
        for (int i = 0; i < 3; ++i)
            packed[byte + i] = static_cast<std::uint8_t>(word >> (8 * i));
    }
}

/// Bytes of a row that no code shares with what follows, in steps of the functions above.
std::int64_t whole_bytes(std::int64_t cols, int bits) {
    return bits == 3 ? cols / 8 * 3 : cols * bits / 8;
}

/// Of bits that divide 8.
template <int bits>
void unpack_whole_bytes(const std::uint8_t* packed, std::uint8_t* codes, std::int64_t bytes) {
    constexpr int codes_in_byte = 8 / bits;
    constexpr unsigned mask = (1U << bits) - 1U;
    for (std::int64_t byte = 0; byte < bytes; ++byte)
        for (int i = 0; i < codes_in_byte; ++i)
            codes[byte * codes_in_byte + i] = static_cast<std::uint8_t>((packed[byte] >> (i * bits)) & mask);
}

/// Eight codes in three bytes.
void unpack_threes(const std::uint8_t* packed, std::uint8_t* codes, std::int64_t bytes) {
    for (std::int64_t byte = 0; byte < bytes; byte += 3, codes += 8) {
        const unsigned word = packed[byte] | static_cast<unsigned>(packed[byte + 1]) << 8U |
                              static_cast<unsigned>(packed[byte + 2]) << 16U;
        for (unsigned i = 0; i < 8; ++i)
            codes[i] = static_cast<std::uint8_t>((word >> (i * 3)) & 7U);
    }
}

}  // namespace

void pack_codes(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols, int bits,
                std::span<std::uint8_t> packed) {
    const std::int64_t row_bytes = packed_bytes(cols, bits);
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::uint8_t* code = codes.data() + row * cols;
        std::uint8_t* place = packed.data() + row * row_bytes;
        const std::int64_t whole = whole_bytes(cols, bits);
        if (bits == 2) pack_whole_bytes<2>(code, place, whole);
        if (bits == 3) pack_threes(code, place, whole);
        if (bits == 4) pack_whole_bytes<4>(code, place, whole);
        if (bits == 8) pack_whole_bytes<8>(code, place, whole);
        place += whole;
        std::uint32_t word = 0;
        int filled = 0;
        for (std::int64_t col = whole * 8 / bits; col < cols; ++col) {
            word |= static_cast<std::uint32_t>(code[col]) << filled;
            for (filled += bits; filled >= 8; filled -= 8, word >>= 8U)
                *place++ = static_cast<std::uint8_t>(word);
        }
        if (filled > 0) *place = static_cast<std::uint8_t>(word);
    }
}

void unpack_codes(std::span<const std::uint8_t> packed, std::int64_t rows, std::int64_t cols, int bits,
                  std::span<std::uint8_t> codes) {
    const std::uint32_t mask = (1U << static_cast<unsigned>(bits)) - 1U;
    const std::int64_t row_bytes = packed_bytes(cols, bits);
    const std::int64_t whole = whole_bytes(cols, bits);
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::uint8_t* byte = packed.data() + row * row_bytes;
        std::uint8_t* code = codes.data() + row * cols;
        if (bits == 2) unpack_whole_bytes<2>(byte, code, whole);
        if (bits == 3) unpack_threes(byte, code, whole);
        if (bits == 4) unpack_whole_bytes<4>(byte, code, whole);
        if (bits == 8) unpack_whole_bytes<8>(byte, code, whole);
        byte += whole;
        std::uint32_t word = 0;
        int filled = 0;
        for (std::int64_t col = whole * 8 / bits; col < cols; ++col) {
            if (filled < bits) {
                word |= static_cast<std::uint32_t>(*byte++) << filled;
                filled += 8;
            }
            code[col] = static_cast<std::uint8_t>(word & mask);
            word >>= static_cast<unsigned>(bits);
            filled -= bits;
        }
    }
}

}  // namespace fairgptq
