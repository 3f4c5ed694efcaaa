// IEEE half precision, bfloat16 and 8-bit floats as storage types: bits and exact conversions, nothing else.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "support/dtype.hpp"

namespace fairgptq {

struct Float16 {
    std::uint16_t bits = 0;
};
struct BFloat16 {
    std::uint16_t bits = 0;
};

/// A sign, 4 bits of exponent and 3 of mantissa; no infinities, and one NaN of either sign (OCP 8-bit floating point
/// specification, E4M3).
struct Float8 {
    std::uint8_t bits = 0;
    bool is_nan() const { return (bits & 0x7fU) == 0x7fU; }
};

/// Exact, subnormals included; NaN becomes 480.
inline float to_float(Float8 value) {
    const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x80U) << 24U;
    // As of half precision: the exponent, in its place, is 120 too low.
    const float scaled = std::bit_cast<float>(static_cast<std::uint32_t>(value.bits & 0x7fU) << 20U) * 0x1p120F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | sign);
}

/// Exact.
inline float to_float(BFloat16 value) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16U);
}

/// Exact, subnormals, infinities and NaN included.
inline float to_float(Float16 value) {
    const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16U;
    const std::uint32_t magnitude = value.bits & 0x7fffU;
    if (magnitude >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13U));
    // Shifting exponent and mantissa into place leaves the exponent 112 too low; multiplying by 2^112 mends normals and
    // subnormals alike.
    const float scaled = std::bit_cast<float>(magnitude << 13U) * 0x1p112F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | sign);
}

/// Rounds to nearest, ties to even; beyond 65504 becomes infinity, NaN stays NaN.
inline Float16 to_half(float value) {
    const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((word >> 16U) & 0x8000U);
    const std::uint32_t magnitude = word & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return {static_cast<std::uint16_t>(sign | 0x7e00U)};
    if (magnitude >= 0x477ff000U) return {static_cast<std::uint16_t>(sign | 0x7c00U)};
    if (magnitude < 0x38800000U) {
        // Subnormal results: adding 0.5 makes the float unit round at half's last place.
        const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
        return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U))};
    }
    const std::uint32_t odd = (magnitude >> 13U) & 1U;
    return {static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000U + 0xfffU + odd) >> 13U))};
}

/// Rounds to nearest, ties to even; NaN stays NaN.
inline BFloat16 to_bfloat16(float value) {
    const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((word >> 16U) | 0x40U)};
    return {static_cast<std::uint16_t>((word + 0x7fffU + ((word >> 16U) & 1U)) >> 16U)};
}

/// The nearest value that the type holds.
inline float round_to(float value, DType type) {
    switch (type) {
        case DType::float16:
            return to_float(to_half(value));
        case DType::bfloat16:
            return to_float(to_bfloat16(value));
        case DType::float32:
            break;
    }
    return value;
}

/// `count` stored values, exactly.
inline std::vector<float> to_floats(const std::byte* stored, DType type, std::size_t count) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t bits = 0;
        if (type == DType::float32)
            std::memcpy(&values[i], stored + i * sizeof(float), sizeof(float));
        else
            std::memcpy(&bits, stored + i * sizeof(bits), sizeof(bits));
        if (type == DType::float16) values[i] = to_float(Float16{bits});
        if (type == DType::bfloat16) values[i] = to_float(BFloat16{bits});
    }
    return values;
}

}  // namespace fairgptq
