// Numbers to measure with, where a good generator would take longer than what is measured.
#pragma once

#include <cstdint>
#include <span>

namespace fairgptq {

/// Values between −scale and scale, the same ones for the same seed (a linear congruential generator).
inline void fill_pseudorandom(std::span<float> values, float scale, std::uint32_t seed) {
    for (float& value : values) {
        seed = seed * 1664525U + 1013904223U;
        value = scale * (static_cast<float>(seed >> 8U) * 0x1p-23F - 1.0F);
    }
}

}  // namespace fairgptq
