// Codes as files have them.
#pragma once

#include <cstdint>
#include <span>

namespace fairgptq {

/// Of a row: whole bytes.
inline std::int64_t packed_bytes(std::int64_t cols, int bits) {
    return (cols * bits + 7) / 8;
}

/// Codes of `bits` bits, least significant first, each row padded to whole bytes; and back.
/// @param codes [rows, cols]
/// @param packed [rows, packed_bytes]
void pack_codes(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols, int bits,
                std::span<std::uint8_t> packed);
void unpack_codes(std::span<const std::uint8_t> packed, std::int64_t rows, std::int64_t cols, int bits,
                  std::span<std::uint8_t> codes);

}  // namespace fairgptq
