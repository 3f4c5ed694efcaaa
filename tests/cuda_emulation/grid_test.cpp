// The column kernel's quotients against divisions.
#include "backend/cuda/grid.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <random>

namespace fairgptq::testing {
namespace {

void expect_division(float a, float b) {
    const float reciprocal = 1 / b;
    ASSERT_EQ(cuda::quotient(a * reciprocal, a, b, reciprocal), a / b) << std::hexfloat << a << " / " << b;
}

float from_bits(std::uint32_t bits) {
    return std::bit_cast<float>(bits);
}

TEST(CudaGrid, QuotientsAreDivisions) {
    std::mt19937 generator(1);
    const auto random = [&](std::uint32_t count) { return static_cast<std::uint32_t>(generator() % count); };
    const auto mantissa = [&] { return from_bits(0x3f800000U | random(0x800000U)); };  // 1 … 2
    for (int k = 0; k < 2000000; ++k) {
        const float b = mantissa();
        expect_division(mantissa(), b);
        // As near as can be to the middle of two floats.
        const double middle = static_cast<double>(mantissa()) + 0x1p-24;
        expect_division(static_cast<float>(static_cast<double>(b) * middle), b);
        // Where a reciprocal's relative error is largest.
        const std::uint32_t below_two = 0x3fffffffU - random(4096);
        expect_division(from_bits(below_two - random(64)), from_bits(below_two));
        if (HasFatalFailure()) return;
    }
    for (int exponent = -99; exponent <= 126; ++exponent)
        for (int k = 0; k < 1000; ++k) {
            const float b = std::ldexp(mantissa(), std::min(exponent, 125));
            expect_division(std::ldexp(mantissa(), exponent), b);
            expect_division(std::ldexp(-mantissa(), exponent), b);
            expect_division(0, b);
            if (HasFatalFailure()) return;
        }
}

TEST(CudaGrid, ClippedValuesStayOnTheirSide) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float scale : {0x1p-126F, 0.01F, 65504.0F, 0x1.fffffep+127F}) {
        const cuda::GridPoint point{scale, 1 / scale, 3};
        EXPECT_EQ(cuda::round_to_grid(infinity, point, 15).code, 15) << scale;
        EXPECT_EQ(cuda::round_to_grid(-infinity, point, 15).code, 0) << scale;
        EXPECT_EQ(cuda::round_to_grid(0, point, 15).code, 3) << scale;
        EXPECT_EQ(cuda::round_to_grid(-0.0F, point, 15).code, 3) << scale;
    }
    EXPECT_EQ(cuda::round_to_grid(1e30F, {0x1p-126F, 0x1p126F, 3}, 15).code, 15);
    EXPECT_EQ(cuda::round_to_grid(-1e30F, {0x1p-126F, 0x1p126F, 3}, 15).code, 0);
}

}  // namespace
}  // namespace fairgptq::testing
