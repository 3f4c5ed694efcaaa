// A weight grid's rules as the GPU applies them: the CPU's (cpu/lanes.hpp), one value at a time instead of 64 lanes.
// Quotients are a division's and sums are not contracted, as ties and clipped values must fall as they do there.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backend/cuda/column_block.hpp"

namespace fairgptq::cuda {

struct GridPoint {
    float scale = 1;
    float reciprocal = 1;  // of the scale
    float zero = 0;        // a whole number
};

struct Rounded {
    float value = 0;
    std::uint8_t code = 0;
};

constexpr float largest_float = 0x1.fffffep+127F;

/// a / b from an estimate of it, a times b's reciprocal: one correction by the remainder gives what a division does
/// (Markstein, IBM Journal of Research and Development 34, 1990), in three dependent instructions and without the
/// branch to a division's slow path, where every column would wait. Where the remainder or the reciprocal is too small
/// for a float, |a| < 2^-100 or |b| > 2^126, the last bit may differ; an infinite estimate becomes NaN.
__device__ inline float quotient(float estimate, float a, float b, float reciprocal) {
    return fmaf(fmaf(-estimate, b, a), reciprocal, estimate);
}

/// Adding it leaves no bits for a fraction, and the last ones hold a small whole number.
constexpr float shifter = 12582912.0F;  // 1.5·2²³

/// Half to even, for |value| < 2²².
__device__ inline float round_even(float value) {
    return (value + shifter) - shifter;
}

__device__ inline float held(float value, float low, float high) {
    return value < low ? low : high < value ? high : value;
}

/// value / scale rounded half to even and held to the grid.
__device__ inline Rounded round_to_grid(float value, GridPoint point, float largest_code) {
    const float low = -point.zero;
    const float high = largest_code - point.zero;
    // An infinite estimate would become NaN, and NaN `low`: right below the grid, wrong above it.
    const float estimate = fminf(value * point.reciprocal, high + 1);
    const float steps = quotient(estimate, value, point.scale, point.reciprocal);
    const float whole = round_even(fminf(fmaxf(steps, low), high));
    return {point.scale * whole, static_cast<std::uint8_t>(__float_as_int(whole + point.zero + shifter))};
}

/// The smallest and the largest of some weights and 0.
struct Range {
    float low = 0;
    float high = 0;

    __device__ inline void include(float value) {
        low = fminf(value, low);
        high = fmaxf(value, high);
    }
};

/// Even around 0 if symmetric; an empty range becomes −1 … 1.
__device__ inline Range usable(Range range, const GridRule& rule) {
    if (rule.symmetric) {
        range.high = range.high < -range.low ? -range.low : range.high;
        range.low = -range.high;
    }
    if (range.low == 0 && range.high == 0) return {-1, 1};
    return range;
}

/// The grid of a usable range shrunk by `step` hundredths.
__device__ inline GridPoint grid_of(Range range, int step, const GridRule& rule) {
    const float ratio = 1 - static_cast<float>(step) / shrink_steps;
    const float smallest = rule.half_scales ? 0x1p-24F : 0x1p-126F;
    const float largest = rule.half_scales ? 65504.0F : largest_float;
    GridPoint point;
    point.scale = (ratio * range.high - ratio * range.low) / rule.largest_code;
    point.scale = held(rule.half_scales ? __half2float(__float2half_rn(point.scale)) : point.scale, smallest, largest);
    point.reciprocal = 1 / point.scale;
    point.zero = rule.symmetric ? (rule.largest_code + 1) / 2
                                : round_even(held(-ratio * range.low / point.scale, 0, rule.largest_code));
    return point;
}

/// |x|^2.4 = x²·(x²)^0.2, the fifth root by Newton's method from a first guess made of the exponent's bits.
__device__ inline float power_2_4(float x) {
    const float square = fmaf(x, x, 0x1p-126F);
    float y = __int_as_float(static_cast<std::int32_t>(1.2781E9F - 0.2F * static_cast<float>(__float_as_int(square))));
#pragma unroll
    for (int step = 0; step < 3; ++step) {
        const float y2 = y * y;
        y = y * fmaf(-0.2F * square, y2 * y2 * y, 1.2F);
    }
    const float y2 = y * y;
    return square * square * (y2 * y2);
}

}  // namespace fairgptq::cuda
