// SHA-256, which tools of other languages name files with.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace fairgptq {

/// 64 hexadecimal digits. Source: FIPS 180-4.
std::string sha256_of(std::span<const std::byte> bytes);

}  // namespace fairgptq
