#include "backend/rotary.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "backends.hpp"
#include "reference/rotary.hpp"

namespace fairgptq::testing {
namespace {

class RotaryTest : public BackendTest {
  protected:
    HostMatrix rotary(const HostMatrix& x, std::int64_t head_dim, const std::vector<std::int64_t>& offsets,
                      const std::vector<float>& frequencies, float factor,
                      RotaryPairs pairs = RotaryPairs::halves) const {
        const DeviceMatrix heads = upload(x);
        backend->rotary(heads.view, head_dim, offsets, frequencies, factor, pairs);
        return download(heads.view);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(RotaryTest);

std::vector<float> usual_frequencies(std::int64_t head_dim) {
    std::vector<float> frequencies;
    for (std::int64_t i = 0; i < head_dim; i += 2)
        frequencies.push_back(std::pow(10000.0F, -static_cast<float>(i) / static_cast<float>(head_dim)));
    return frequencies;
}

TEST_P(RotaryTest, RotatesEachSequenceFromPositionZero) {
    for (const std::int64_t head_dim : {2, 16, 30, 64, 128, 300})
        for (const std::vector<std::int64_t>& offsets :
             {std::vector<std::int64_t>{0}, {0, 1}, {0, 0, 3, 3}, {0, 5, 17, 18}, {0, 300}}) {
            const HostMatrix x = rounded(random_matrix(offsets.back(), 3 * head_dim, 1));
            const std::vector<float> frequencies = usual_frequencies(head_dim);
            // Sine, cosine and factor are rounded (3u together), as are both products and their sum, each below
            // 1.5·(|a| + |b|).
            double largest = 0;
            for (const float value : x.values)
                largest = std::max(largest, std::fabs(static_cast<double>(value)));
            const double bound = 1.5 * 2 * largest * (5 * float32_roundoff + unit_roundoff(type));
            for (const RotaryPairs pairs : {RotaryPairs::halves, RotaryPairs::neighbours}) {
                const reference::Matrix expected =
                    reference::rotary(x.view(), head_dim, offsets, frequencies, 1.5, pairs == RotaryPairs::neighbours);
                expect_near(rotary(x, head_dim, offsets, frequencies, 1.5F, pairs), expected,
                            [&](std::int64_t, std::int64_t) { return bound; });
            }
        }
}

TEST_P(RotaryTest, ElementsBehindTheRotatedOnesPass) {
    // Kernels take 4 or 8 elements at a time where heads and what is rotated of them are multiples of that.
    for (const std::int64_t head_dim : {4, 32, 36, 128, 300})
        for (const std::int64_t rotated : {head_dim / 4 * 2, head_dim / 4 * 3 / 2 * 2, head_dim - 2})
            for (const auto& [tokens, pairs] : std::vector<std::pair<std::int64_t, RotaryPairs>>{
                     {1, RotaryPairs::halves}, {9, RotaryPairs::halves}, {9, RotaryPairs::neighbours}}) {
                const HostMatrix x = rounded(random_matrix(tokens, 3 * head_dim, 2));
                const std::vector<float> frequencies = usual_frequencies(rotated);
                const reference::Matrix expected =
                    reference::rotary(x.view(), head_dim, std::vector<std::int64_t>{0, tokens}, frequencies, 1,
                                      pairs == RotaryPairs::neighbours);
                const HostMatrix found = rotary(x, head_dim, {0, tokens}, frequencies, 1, pairs);
                double largest = 0;
                for (const float value : x.values)
                    largest = std::max(largest, std::fabs(static_cast<double>(value)));
                const double bound = 2 * largest * (5 * float32_roundoff + unit_roundoff(type));
                expect_near(found, expected, [&](std::int64_t, std::int64_t) { return bound; });
                for (std::int64_t token = 0; token < tokens; ++token)
                    for (std::int64_t col = 0; col < x.cols; ++col)
                        if (col % head_dim >= rotated) {
                            ASSERT_EQ(found(token, col), x(token, col)) << head_dim << " " << rotated;
                        }
            }
}

TEST_P(RotaryTest, AViewThatBeginsWithinAHeadRotatesFromThere) {
    for (const auto& [head_dim, first, rotated] :
         std::vector<std::array<std::int64_t, 3>>{{24, 16, 8}, {192, 128, 64}, {30, 10, 20}, {32, 8, 16}, {10, 8, 2}})
        for (const RotaryPairs pairs : {RotaryPairs::halves, RotaryPairs::neighbours}) {
            const HostMatrix x = rounded(random_matrix(9, 3 * head_dim, 4));
            const std::vector<float> frequencies = usual_frequencies(rotated);
            const std::vector<std::int64_t> offsets{0, 4, 9};
            const DeviceMatrix all = upload(x);
            backend->rotary(all.view.cols_from(first, 3 * head_dim - first), head_dim, offsets, frequencies, 1, pairs);
            const HostMatrix found = download(all.view);
            // The same with each head's elements in another order, the rotated ones first.
            const auto place = [head_dim = head_dim, first = first](std::int64_t col) {
                return col / head_dim * head_dim + (col % head_dim + head_dim - first) % head_dim;
            };
            HostMatrix moved(x.rows, x.cols);
            for (std::int64_t row = 0; row < x.rows; ++row)
                for (std::int64_t col = 0; col < x.cols; ++col)
                    moved(row, place(col)) = x(row, col);
            const HostMatrix expected = rotary(moved, head_dim, offsets, frequencies, 1, pairs);
            for (std::int64_t row = 0; row < x.rows; ++row)
                for (std::int64_t col = 0; col < x.cols; ++col)
                    ASSERT_NEAR(found(row, col), expected(row, place(col)), 8 * unit_roundoff(type))
                        << head_dim << " " << first << " " << rotated;
        }
    const DeviceMatrix short_last = upload(HostMatrix(3, 40));  // 24 + 16, of which 20 would be rotated
    EXPECT_THROW(backend->rotary(short_last.view, 24, std::vector<std::int64_t>{0, 3}, usual_frequencies(20), 1),
                 Failure);
}

TEST_P(RotaryTest, RotatesAtAnyPositions) {
    const std::vector<float> frequencies = usual_frequencies(32);
    const HostMatrix x = rounded(random_matrix(6, 64, 3));
    const std::vector<std::int64_t> positions{7, 3, 1000, 3, 8, 999};
    const DeviceMatrix heads = upload(x);
    backend->rotary_at(heads.view, 32, positions, frequencies, 1.0F);
    const HostMatrix found = download(heads.view);
    for (std::int64_t row = 0; row < x.rows; ++row) {
        // The same token as the last of a sequence that is long enough.
        const std::int64_t position = positions[static_cast<std::size_t>(row)];
        HostMatrix sequence(position + 1, x.cols);
        for (std::int64_t col = 0; col < x.cols; ++col)
            sequence(position, col) = x(row, col);
        const HostMatrix expected = rotary(sequence, 32, {0, position + 1}, frequencies, 1.0F);
        for (std::int64_t col = 0; col < x.cols; ++col)
            ASSERT_EQ(found(row, col), expected(position, col)) << row;
    }
    EXPECT_THROW(backend->rotary_at(heads.view, 32, std::vector<std::int64_t>{1}, frequencies, 1), Failure);
    EXPECT_THROW(backend->rotary_at(heads.view, 32, std::vector<std::int64_t>{0, 0, 0, 0, 0, -1}, frequencies, 1),
                 Failure);
}

TEST_P(RotaryTest, IsAsExactFarFromTheStart) {
    // Angles of every quarter, and many turns: float32 would have lost them.
    constexpr std::int64_t half = 32;
    const std::vector<float> frequencies = usual_frequencies(2 * half);
    for (const std::int64_t first : {1, 131071, 1048575, 123456789}) {
        std::vector<std::int64_t> positions(20);
        std::iota(positions.begin(), positions.end(), first);
        const HostMatrix x = rounded(random_matrix(std::ssize(positions), 2 * half, 5));
        const DeviceMatrix heads = upload(x);
        backend->rotary_at(heads.view, 2 * half, positions, frequencies, 1.0F);
        const HostMatrix found = download(heads.view);
        for (std::int64_t row = 0; row < x.rows; ++row)
            for (std::int64_t i = 0; i < half; ++i) {
                const double angle =
                    static_cast<double>(first + row) * static_cast<double>(frequencies[static_cast<std::size_t>(i)]);
                const auto a = static_cast<double>(x(row, i));
                const auto b = static_cast<double>(x(row, half + i));
                // As above; an angle's own rounding in float64 is 123456808·2⁻⁵³ at most.
                const double bound = (std::fabs(a) + std::fabs(b)) * (5 * float32_roundoff + unit_roundoff(type));
                ASSERT_NEAR(found(row, i), a * std::cos(angle) - b * std::sin(angle), bound) << first << " " << i;
                ASSERT_NEAR(found(row, half + i), b * std::cos(angle) + a * std::sin(angle), bound) << first;
            }
    }
}

TEST_P(RotaryTest, OtherPositionsAndFrequenciesOfTheSameNumberAreTaken) {
    const HostMatrix x = rounded(random_matrix(3, 64, 7));
    const std::vector<float> usual = usual_frequencies(32);
    std::vector<float> others = usual;
    for (float& frequency : others)
        frequency *= 0.5F;
    const auto at = [&](const std::vector<std::int64_t>& positions, const std::vector<float>& frequencies) {
        const DeviceMatrix heads = upload(x);
        backend->rotary_at(heads.view, 32, positions, frequencies, 1.0F);
        return download(heads.view).values;
    };
    const std::vector<float> first = at({2, 4, 6}, usual);
    EXPECT_EQ(at({1, 2, 3}, usual), at({2, 4, 6}, others)) << "half the angle, twice the position";
    EXPECT_NE(at({2, 4, 8}, usual), first);
    EXPECT_EQ(at({2, 4, 6}, usual), first);
    const HostMatrix more = rounded(random_matrix(5, 64, 8));
    const DeviceMatrix heads = upload(more);
    backend->rotary_at(heads.view, 32, std::vector<std::int64_t>{2, 4, 6, 8, 10}, usual, 1.0F);
    EXPECT_EQ(at({2, 4, 6}, usual), first);
}

TEST_P(RotaryTest, PositionZeroChangesNothing) {
    const HostMatrix x = rounded(random_matrix(4, 64, 1));
    EXPECT_EQ(rotary(x, 32, {0, 1, 2, 3, 4}, usual_frequencies(32), 1.0F).values, x.values);
}

TEST_P(RotaryTest, WhatDoesNotFitIsRefused) {
    const HostMatrix x(4, 64);
    const std::vector<float> frequencies = usual_frequencies(32);
    EXPECT_THROW(rotary(x, 33, {0, 4}, frequencies, 1), Failure);
    EXPECT_THROW(rotary(x, 24, {0, 4}, usual_frequencies(24), 1), Failure);
    EXPECT_THROW(rotary(x, 16, {0, 4}, frequencies, 1), Failure);
    EXPECT_THROW(rotary(x, 32, {0, 4}, {}, 1), Failure);
    EXPECT_THROW(rotary(x, 32, {0, 3}, frequencies, 1), Failure);
    EXPECT_THROW(rotary(x, 32, {1, 4}, frequencies, 1), Failure);
    EXPECT_THROW(rotary(x, 32, {0, 3, 2, 4}, frequencies, 1), Failure);
    EXPECT_THROW(rotary(x, 32, {}, frequencies, 1), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
