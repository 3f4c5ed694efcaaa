// How tensor cores add products to a float32 sum: they cut off where a float32 addition rounds.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace emulation {

/// Products that are added at once, and bits beyond float32's that they keep meanwhile: an A100's. An H100 adds 16 and
/// keeps 2 bits (Khattak and Mikaitis, arXiv 2512.07004).
constexpr int products_at_once = 8;
constexpr int bits_beyond = 1;

/// sum + Σ products, all cut off at one bit that the largest decides, as is what they add up to.
inline float add_products(float sum, const double (&products)[products_at_once]) {
    constexpr std::uint64_t exponent_place = 52, bias = 1023, kept = 23 + bits_beyond;
    double largest = std::fabs(static_cast<double>(sum));
    for (const double product : products)
        largest = std::max(largest, std::fabs(product));
    // Of 0, and of what is not finite, all bits are kept.
    const bool cut = largest > 0 && largest <= std::numeric_limits<double>::max();
    const std::uint64_t unit = cut ? (std::bit_cast<std::uint64_t>(largest) >> exponent_place) - kept : bias;
    const auto steps = std::bit_cast<double>((2 * bias - unit) << exponent_place);  // in 1
    double total = std::trunc(static_cast<double>(sum) * steps);
    for (const double product : products)
        total += std::trunc(product * steps);
    total *= std::bit_cast<double>(unit << exponent_place);
    const auto rounded = static_cast<float>(total);
    const double size = std::fabs(static_cast<double>(rounded));
    const bool too_large = size > std::fabs(total) && size <= static_cast<double>(std::numeric_limits<float>::max());
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(rounded) - (too_large ? 1U : 0U));
}

}  // namespace emulation
