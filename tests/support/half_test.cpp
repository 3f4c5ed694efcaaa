// The conversions against the formats' definitions, written out in double, where nothing rounds.
#include "support/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace fairgptq {
namespace {

/// The value of a 16-bit pattern: sign, then an exponent of 15 − mantissa_bits bits, then the mantissa.
double value_of(std::uint16_t bits, int mantissa_bits) {
    const int exponent_bits = 15 - mantissa_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = (bits & 0x7fff) >> mantissa_bits;
    const int mantissa = bits & ((1 << mantissa_bits) - 1);
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sign * std::numeric_limits<double>::infinity();
    const double fraction = std::ldexp(mantissa, -mantissa_bits);
    return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
}

/// The pattern nearest to a positive, finite value; of two equally near ones the even one. What is nearer to the next
/// power of two beyond the largest finite number than to that number becomes infinity.
std::uint16_t nearest(double value, int mantissa_bits) {
    const int infinity = ((1 << (15 - mantissa_bits)) - 1) << mantissa_bits;
    const auto reach = [&](int bits) {  // as if the exponent went on above the largest
        return bits < infinity ? value_of(static_cast<std::uint16_t>(bits), mantissa_bits)
                               : std::ldexp(1.0, (1 << (14 - mantissa_bits)));
    };
    int low = 0;
    int high = infinity;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (reach(middle) <= value ? low : high) = middle;
    }
    const double below = value - reach(low);
    const double above = reach(high) - value;
    const bool take_high = above < below || (above == below && high % 2 == 0);
    return static_cast<std::uint16_t>(take_high ? high : low);
}

constexpr int half_mantissa = 10;
constexpr int bfloat_mantissa = 7;

TEST(Half, EveryPatternHasItsValue) {
    for (int bits = 0; bits < 65536; ++bits) {
        const auto pattern = static_cast<std::uint16_t>(bits);
        const double expected = value_of(pattern, half_mantissa);
        const float actual = to_float(Float16{pattern});
        if (std::isnan(expected)) {
            EXPECT_TRUE(std::isnan(actual)) << bits;
            EXPECT_TRUE(std::isnan(to_float(to_half(actual)))) << bits;
        } else {
            EXPECT_EQ(actual, expected) << bits;
            EXPECT_EQ(std::signbit(actual), std::signbit(expected)) << bits;
            EXPECT_EQ(to_half(actual).bits, pattern) << bits;
        }
    }
}

TEST(Float8, EveryPatternHasItsValue) {
    for (unsigned pattern = 0; pattern < 256; ++pattern) {
        const auto exponent = static_cast<int>(pattern >> 3U & 15U);
        const int mantissa = static_cast<int>(pattern & 7U);
        const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
        const Float8 value{static_cast<std::uint8_t>(pattern)};
        EXPECT_EQ(value.is_nan(), pattern % 128 == 127) << pattern;
        if (value.is_nan()) continue;
        EXPECT_EQ(static_cast<double>(to_float(value)), pattern < 128 ? magnitude : -magnitude) << pattern;
        EXPECT_EQ(std::signbit(to_float(value)), pattern >= 128) << pattern;
    }
    EXPECT_EQ(to_float(Float8{0x7e}), 448);  // the largest
}

TEST(BFloat16, EveryPatternHasItsValue) {
    for (int bits = 0; bits < 65536; ++bits) {
        const auto pattern = static_cast<std::uint16_t>(bits);
        const double expected = value_of(pattern, bfloat_mantissa);
        const float actual = to_float(BFloat16{pattern});
        if (std::isnan(expected)) {
            EXPECT_TRUE(std::isnan(actual)) << bits;
            EXPECT_TRUE(std::isnan(to_float(to_bfloat16(actual)))) << bits;
        } else {
            EXPECT_EQ(actual, expected) << bits;
            EXPECT_EQ(std::signbit(actual), std::signbit(expected)) << bits;
            EXPECT_EQ(to_bfloat16(actual).bits, pattern) << bits;
        }
    }
}

/// float32 numbers where rounding can go wrong: around every 16-bit number, around the middle between each and the
/// next, and spread over all exponents.
std::vector<float> rounding_cases(int mantissa_bits) {
    std::vector<float> cases;
    const int infinity = ((1 << (15 - mantissa_bits)) - 1) << mantissa_bits;
    for (int bits = 0; bits < infinity; ++bits) {
        const double value = value_of(static_cast<std::uint16_t>(bits), mantissa_bits);
        const double next = bits + 1 < infinity ? value_of(static_cast<std::uint16_t>(bits + 1), mantissa_bits)
                                                : std::ldexp(1.0, 1 << (14 - mantissa_bits));
        const auto middle = static_cast<float>((value + next) / 2);  // representable: one more bit
        for (const float centre : {static_cast<float>(value), middle})
            for (const float towards : {0.0F, std::numeric_limits<float>::infinity()})
                cases.push_back(std::nextafter(centre, towards));
        cases.push_back(middle);
    }
    for (std::uint32_t word = 0; word < 0x7f800000U; word += 54321)
        cases.push_back(std::bit_cast<float>(word));
    cases.push_back(std::numeric_limits<float>::denorm_min());
    cases.push_back(std::numeric_limits<float>::max());
    return cases;
}

TEST(Half, RoundsToTheNearestTiesToEven) {
    for (const float value : rounding_cases(half_mantissa)) {
        EXPECT_EQ(to_half(value).bits, nearest(value, half_mantissa)) << std::hexfloat << value;
        EXPECT_EQ(to_half(-value).bits, nearest(value, half_mantissa) | 0x8000U) << std::hexfloat << -value;
    }
}

TEST(BFloat16, RoundsToTheNearestTiesToEven) {
    for (const float value : rounding_cases(bfloat_mantissa)) {
        EXPECT_EQ(to_bfloat16(value).bits, nearest(value, bfloat_mantissa)) << std::hexfloat << value;
        EXPECT_EQ(to_bfloat16(-value).bits, nearest(value, bfloat_mantissa) | 0x8000U) << std::hexfloat << -value;
    }
}

TEST(Half, KeepsInfinitiesAndNaN) {
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(to_half(infinity).bits, 0x7c00);
    EXPECT_EQ(to_half(-infinity).bits, 0xfc00);
    EXPECT_EQ(to_bfloat16(infinity).bits, 0x7f80);
    EXPECT_EQ(to_bfloat16(-infinity).bits, 0xff80);
    // NaN whose payload lies in the bits that are cut off, or fills all of them.
    for (const std::uint32_t word : {0x7f800001U, 0xff800001U, 0x7fc00000U, 0x7fffffffU, 0xffffffffU}) {
        EXPECT_TRUE(std::isnan(to_float(to_half(std::bit_cast<float>(word))))) << word;
        EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(word))))) << word;
    }
}

}  // namespace
}  // namespace fairgptq
