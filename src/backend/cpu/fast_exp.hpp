// exp(x), and what is made of it, that compilers vectorise: no branch, no table, no call. Softmax and SiLU take it once
// per element, and the C library's would cost them more than their memory traffic.
#pragma once

#include <bit>
#include <cstdint>

namespace fairgptq {

/// exp(x) to a relative error below 4·10⁻⁷; subnormal results are rounded, overflow gives infinity, NaN stays NaN.
/// Method: x = n·ln 2 + r with |r| ≤ ln 2 / 2, Taylor's series of degree 7 in r, then scaling by 2ⁿ.
inline float fast_exp(float x) {
    constexpr float log2_e = 1.44269504F;
    // ln 2 in two parts: the first has few enough bits that n times it is exact.
    constexpr float ln_2_high = 0.693359375F;
    constexpr float ln_2_low = -2.12194440e-4F;
    // Adding 1.5·2²³ leaves the nearest integer in the last bits of the mantissa.
    constexpr float round_shift = 12582912.0F;
    // Results beyond these ends are 0 and infinity; the comparisons let NaN through.
    float clamped = x < -104.0F ? -104.0F : x;
    clamped = clamped > 89.0F ? 89.0F : clamped;
    const float shifted = clamped * log2_e + round_shift;
    const float n = shifted - round_shift;
    const float r = (clamped - n * ln_2_high) - n * ln_2_low;
    float p = 1.0F / 5040.0F;
    p = p * r + 1.0F / 720.0F;
    p = p * r + 1.0F / 120.0F;
    p = p * r + 1.0F / 24.0F;
    p = p * r + 1.0F / 6.0F;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    // 2ⁿ as two factors, because n reaches from −150 to 128 and a float's exponent from −126 to 127.
    const auto exponent = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) - 0x4b400000U);
    const std::int32_t half = exponent >> 1;
    const float scale0 = std::bit_cast<float>((half + 127) << 23);
    const float scale1 = std::bit_cast<float>((exponent - half + 127) << 23);
    return p * scale0 * scale1;
}

/// tanh(x) to an absolute error below 3·10⁻⁷, by fast_exp; NaN stays NaN.
inline float fast_tanh(float x) {
    const float size = x < 0.0F ? -x : x;
    const float e = fast_exp(-2.0F * size);
    const float t = (1.0F - e) / (1.0F + e);
    return x < 0.0F ? -t : t;
}

/// values → cap · tanh(values / cap). @param cap above 0
inline void cap_softly(float* values, std::int64_t count, float cap) {
    const float inverse = 1.0F / cap;
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i)
        values[i] = cap * fast_tanh(values[i] * inverse);
}

}  // namespace fairgptq
