// A weight grid's rules as the GPU applies them: the CPU's (cpu/lanes.hpp), one value at a time instead of 64 lanes.
// Divisions are divisions and sums are not contracted, as ties and clipped values must fall as they do there.
#pragma once

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

#include <bit>

#include "backend/cuda/portable.hpp"
#include "support/half.hpp"

namespace fairgptq::cuda {

struct GridRule {
    float largest_code = 15;
    bool symmetric = true;
    bool search = false;      // mean-squared-error search over shrunken ranges (its exponent is 2.4, GPTQ's)
    bool half_scales = true;  // scales rounded to float16
};

struct GridPoint {
    float scale = 1;
    float zero = 0;  // a whole number
};

struct Rounded {
    float value = 0;
    std::uint8_t code = 0;
};

constexpr int shrink_steps = 100;  // GPTQ's search: ranges shrunk in steps of 1 %, by less than 80 %
constexpr int shrink_limit = 80;

FAIRGPTQ_PORTABLE float round_to_half(float value) {
#ifdef __CUDA_ARCH__
    return __half2float(__float2half_rn(value));
#else
    return to_float(to_half(value));
#endif
}

FAIRGPTQ_PORTABLE float float_of_bits(std::int32_t bits) {
#ifdef __CUDA_ARCH__
    return __int_as_float(bits);
#else
    return std::bit_cast<float>(bits);
#endif
}

FAIRGPTQ_PORTABLE std::int32_t bits_of_float(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_int(value);
#else
    return std::bit_cast<std::int32_t>(value);
#endif
}

/// Half to even, for |value| < 2²²: adding 1.5·2²³ leaves no bits for a fraction.
FAIRGPTQ_PORTABLE float round_even(float value) {
    constexpr float shifter = 12582912.0F;
    return (value + shifter) - shifter;
}

FAIRGPTQ_PORTABLE float held(float value, float low, float high) {
    return value < low ? low : high < value ? high : value;
}

/// value / scale rounded half to even and held to the grid.
FAIRGPTQ_PORTABLE Rounded round_to_grid(float value, GridPoint point, float largest_code) {
    const float low = -point.zero;
    const float high = largest_code - point.zero;
    float steps = value / point.scale;
    steps = steps > low ? steps : low;
    steps = steps < high ? steps : high;
    steps = round_even(steps);
    return {point.scale * steps, static_cast<std::uint8_t>(static_cast<std::int32_t>(steps + point.zero))};
}

/// The smallest and the largest of some weights and 0.
struct Range {
    float low = 0;
    float high = 0;

    FAIRGPTQ_PORTABLE void include(float value) {
        low = value < low ? value : low;
        high = value > high ? value : high;
    }
};

/// Even around 0 if symmetric; an empty range becomes −1 … 1.
FAIRGPTQ_PORTABLE Range usable(Range range, const GridRule& rule) {
    if (rule.symmetric) {
        range.high = range.high < -range.low ? -range.low : range.high;
        range.low = -range.high;
    }
    if (range.low == 0 && range.high == 0) return {-1, 1};
    return range;
}

/// The grid of a usable range shrunk by `step` hundredths.
FAIRGPTQ_PORTABLE GridPoint grid_of(Range range, int step, const GridRule& rule) {
    const float ratio = 1 - static_cast<float>(step) / shrink_steps;
    const float smallest = rule.half_scales ? 0x1p-24F : 0x1p-126F;
    const float largest = rule.half_scales ? 65504.0F : 0x1.fffffep+127F;
    GridPoint point;
    point.scale = (ratio * range.high - ratio * range.low) / rule.largest_code;
    point.scale = held(rule.half_scales ? round_to_half(point.scale) : point.scale, smallest, largest);
    point.zero = rule.symmetric ? (rule.largest_code + 1) / 2
                                : round_even(held(-ratio * range.low / point.scale, 0, rule.largest_code));
    return point;
}

/// |x|^2.4 = x²·(x²)^0.2, the fifth root by Newton's method from a first guess made of the exponent's bits.
FAIRGPTQ_PORTABLE float power_2_4(float x) {
    const float square = fused(x, x, 0x1p-126F);
    float y = float_of_bits(static_cast<std::int32_t>(1.2781E9F - 0.2F * static_cast<float>(bits_of_float(square))));
    FAIRGPTQ_UNROLL
    for (int step = 0; step < 3; ++step) {
        const float y2 = y * y;
        y = y * fused(-0.2F * square, y2 * y2 * y, 1.2F);
    }
    const float y2 = y * y;
    return square * square * (y2 * y2);
}

}  // namespace fairgptq::cuda
