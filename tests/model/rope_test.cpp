// Rotary frequencies of each scaling, against the formulas' values at places worked out by hand.
#include "model/rope.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace fairgptq {
namespace {

TEST(Rope, DefaultFallsGeometrically) {
    const auto frequencies = rope_frequencies({.theta = 10000}, 8);
    ASSERT_EQ(frequencies.size(), 4U);
    EXPECT_EQ(frequencies[0], 1.0F);
    EXPECT_EQ(frequencies[1], 0.1F);
    EXPECT_EQ(frequencies[2], 0.01F);
    EXPECT_EQ(frequencies[3], 0.001F);
}

TEST(Rope, LinearDividesAll) {
    const auto frequencies = rope_frequencies({.type = "linear", .theta = 10000, .factor = 4}, 8);
    EXPECT_EQ(frequencies[0], 0.25F);
    EXPECT_EQ(frequencies[3], 0.00025F);
}

TEST(Rope, Llama3KeepsFastPairsAndStretchesSlowOnes) {
    // With an original context of 2π·50, a frequency f makes 50·f turns: 50, 5, 0.5 and 0.05 of them.
    const RopeSettings rope{.type = "llama3",
                            .theta = 10000,
                            .factor = 8,
                            .low_freq_factor = 1,
                            .high_freq_factor = 9,
                            .original_max_position_embeddings = 2 * std::numbers::pi * 50};
    const auto frequencies = rope_frequencies(rope, 8);
    EXPECT_EQ(frequencies[0], 1.0F);
    // 5 turns are halfway between 1 and 9: half is kept and half divided by 8.
    EXPECT_FLOAT_EQ(frequencies[1], 0.5F * 0.1F + 0.5F * 0.0125F);
    EXPECT_FLOAT_EQ(frequencies[2], 0.01F / 8);
    EXPECT_FLOAT_EQ(frequencies[3], 0.001F / 8);
}

TEST(Rope, YarnStretchesWhatTurnsLittle) {
    // With an original context of 2π·100, the pair i of 4 makes 100·10^−i turns: 10 of them at i = 1, 0.1 at i = 3.
    RopeSettings rope{.type = "yarn", .theta = 10000, .factor = 8};
    rope.beta_fast = 10;
    rope.beta_slow = 0.1;
    rope.original_max_position_embeddings = 2 * std::numbers::pi * 100;
    rope.truncate = false;
    const auto frequencies = rope_frequencies(rope, 8);
    EXPECT_FLOAT_EQ(frequencies[0], 1.0F);
    EXPECT_FLOAT_EQ(frequencies[1], 0.1F);
    EXPECT_FLOAT_EQ(frequencies[2], 0.5F * 0.01F + 0.5F * 0.01F / 8);  // halfway between them
    EXPECT_FLOAT_EQ(frequencies[3], 0.001F / 8);
    rope.beta_fast = 3;  // at i = 1.52, and 0.3 turns at i = 2.52: the straight line goes from 1 to 3
    rope.beta_slow = 0.3;
    rope.truncate = true;
    EXPECT_FLOAT_EQ(rope_frequencies(rope, 8)[2], 0.5F * 0.01F + 0.5F * 0.01F / 8);
    // One turn for both, as Kimi-K2 has it, at i = 2, or 1.52 and so from 1 to 2: no line, or one of a single step.
    rope.beta_fast = rope.beta_slow = 1;
    for (const double turns : {1.0, 3.0}) {
        rope.original_max_position_embeddings = 2 * std::numbers::pi * 100 / turns;
        const std::vector<float> stepped = rope_frequencies(rope, 8);
        EXPECT_FLOAT_EQ(stepped[1], 0.1F) << turns;
        EXPECT_FLOAT_EQ(stepped[2], turns == 1 ? 0.01F : 0.01F / 8) << turns;
        EXPECT_FLOAT_EQ(stepped[3], 0.001F / 8) << turns;
    }
    rope.truncate = false;
    EXPECT_FLOAT_EQ(rope_frequencies(rope, 8)[1], 0.1F);
}

TEST(Rope, LongropeDividesEachPairByItsOwn) {
    RopeSettings rope{.type = "longrope", .theta = 10000};
    rope.short_factor = {1, 2, 4, 5};
    const auto frequencies = rope_frequencies(rope, 8);
    EXPECT_FLOAT_EQ(frequencies[0], 1.0F);
    EXPECT_FLOAT_EQ(frequencies[1], 0.05F);
    EXPECT_FLOAT_EQ(frequencies[2], 0.0025F);
    EXPECT_FLOAT_EQ(frequencies[3], 0.0002F);
}

TEST(Rope, RoundsToTheTypeAskedFor) {
    const auto exact = rope_frequencies({.theta = 10000}, 64);
    const auto rounded = rope_frequencies({.theta = 10000, .frequency_type = DType::bfloat16}, 64);
    for (std::size_t i = 0; i < exact.size(); ++i)
        EXPECT_EQ(rounded[i], to_float(to_bfloat16(exact[i])));
    EXPECT_NE(rounded, exact);
    const auto half = rope_frequencies({.theta = 10000, .frequency_type = DType::float16}, 64);
    for (std::size_t i = 0; i < exact.size(); ++i)
        EXPECT_EQ(half[i], to_float(to_half(exact[i])));
}

}  // namespace
}  // namespace fairgptq
