#include "backend/columns.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "backends.hpp"
#include "reference/columns.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

struct Result {
    HostMatrix values, scales;
    std::vector<std::uint8_t> codes, zeros;
    bool operator==(const Result& other) const {
        return values.values == other.values.values && scales.values == other.scales.values && codes == other.codes &&
               zeros == other.zeros;
    }
};

/// R with a few large elements in each column, at all distances from the diagonal. Above the diagonal a column sums to
/// less than half of the pivots, so that rounding errors die out instead of growing.
HostMatrix sparse_inverse(std::int64_t n, unsigned seed) {
    HostMatrix inverse(n, n);
    std::mt19937 generator(seed);
    for (std::int64_t j = 0; j < n; ++j) {
        inverse(j, j) = 0.5F + static_cast<float>(generator() % 1000) / 1000;
        for (int k = 0; k < 3 && j > 0; ++k) {
            const auto i = static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(j));
            inverse(i, j) = (generator() % 2 == 0 ? 0.16F : -0.16F) * inverse(i, i);
        }
    }
    return inverse;
}

class ColumnsTest : public BackendTest {
  protected:
    /// @param given scales and zeros for ScaleMoment::given
    Result solve(const HostMatrix& weights, const HostMatrix& inverse, const Grid& grid, ScaleMoment moment,
                 const std::vector<std::int32_t>& groups, const Result* given = nullptr) {
        const std::int64_t group_count = weights.cols == 0 ? 0 : weights.cols / grid.group_size;
        const DeviceMatrix device_weights = upload_float32(weights);
        const DeviceMatrix device_inverse = upload_float32(inverse);
        const DeviceMatrix scales =
            given != nullptr ? upload_float32(given->scales) : device_matrix(weights.rows, group_count, DType::float32);
        const Buffer zeros = upload_vector(
            given != nullptr ? given->zeros
                             : std::vector<std::uint8_t>(static_cast<std::size_t>(weights.rows * group_count)));
        const Buffer codes = backend->allocate(weights.values.size());
        const Buffer group_of_column = upload_vector(groups);
        backend->quantize_columns({device_weights.view.float32(), device_inverse.view.float32(), grid, moment,
                                   group_of_column.as<std::int32_t>(),
                                   codes.matrix<std::uint8_t>(weights.rows, weights.cols), scales.view.float32(),
                                   zeros.matrix<std::uint8_t>(weights.rows, group_count)});
        return {download(device_weights.view), download(scales.view), download_vector<std::uint8_t>(codes),
                download_vector<std::uint8_t>(zeros)};
    }

    static std::vector<std::int32_t> neighbours(std::int64_t n, std::int64_t group_size) {
        std::vector<std::int32_t> groups(static_cast<std::size_t>(n));
        for (std::int64_t i = 0; i < n; ++i)
            groups[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / group_size);
        return groups;
    }
};
FAIRGPTQ_ON_BACKENDS(ColumnsTest);

/// The scale of weights first … first + count, known up to `bound`, against what the backend found.
void check_scale(const std::vector<double>& weights, std::int64_t first, std::int64_t count, double bound,
                 const Grid& grid, double scale, double zero) {
    const double largest_code = std::exp2(grid.bits) - 1;
    const reference::Range range = reference::range_of(weights, first, count, grid.symmetric);
    // A step of the chosen type, and the range's own bound.
    const double unit = grid.scale_type == ScaleType::float16 ? 0x1p-11 : 4 * float32_roundoff;
    const auto tolerance = [&](double expected) { return expected * unit + 2 * bound / largest_code + 0x1p-25; };
    if (grid.symmetric) {
        EXPECT_EQ(zero, (largest_code + 1) / 2);
    }
    if (grid.scale_search == ScaleSearch::none) {
        const double expected = (range.high - range.low) / largest_code;
        ASSERT_NEAR(scale, expected, tolerance(expected));
        if (!grid.symmetric) {
            ASSERT_LE(std::fabs(-range.low / scale - zero), 0.5 + bound / scale + 1e-4);
        }
        return;
    }
    double best = std::numeric_limits<double>::infinity();
    bool is_candidate = false;
    for (int step = 0; step < 80; ++step) {
        const double ratio = 1 - step / 100.0;
        double candidate = ratio * (range.high - range.low) / largest_code;
        is_candidate = is_candidate || std::fabs(scale - candidate) <= tolerance(candidate);
        if (grid.scale_type == ScaleType::float16) candidate = to_float(to_half(static_cast<float>(candidate)));
        const double candidate_zero =
            grid.symmetric ? zero : std::clamp(std::nearbyint(-ratio * range.low / candidate), 0.0, largest_code);
        best = std::min(best, reference::grid_error(weights, first, count, candidate, candidate_zero, grid.bits));
    }
    EXPECT_TRUE(is_candidate) << scale;
    // Sums of `count` positive terms in float32; each term's power amplifies its relative error 2.4 times. A weight
    // whose bound moves it over a tie changes its term by no more than its share of the bound.
    ASSERT_LE(reference::grid_error(weights, first, count, scale, zero, grid.bits),
              best * (1 + (static_cast<double>(count) + 30) * float32_roundoff + 10 * bound / scale) + 1e-12);
}

/// Retraces every row of `result` in float64: were the scales found from the right weights, was each weight rounded to
/// the nearest point of its grid?
void check_result(const HostMatrix& weights, const HostMatrix& inverse, const Grid& grid, ScaleMoment moment,
                  const std::vector<std::int32_t>& groups, const Result& result) {
    const std::int64_t n = weights.cols;
    const std::int64_t group_count = n == 0 ? 0 : n / grid.group_size;
    const double largest_code = std::exp2(grid.bits) - 1;
    for (std::int64_t r = 0; r < weights.rows; ++r) {
        SCOPED_TRACE("row " + std::to_string(r));
        reference::RetracedRow row;
        for (std::int64_t i = 0; i < n; ++i)
            row.weights.push_back(weights(r, i));
        row.bound.assign(static_cast<std::size_t>(n), 0.0);
        reference::RetracedRow at_block_start;
        for (std::int64_t i = 0; i < n; ++i) {
            if (i % 128 == 0) at_block_start = row;
            const std::int32_t group = groups[static_cast<std::size_t>(i)];
            const double scale = result.scales(r, group);
            const double zero = result.zeros[static_cast<std::size_t>(r * group_count + group)];
            if (moment != ScaleMoment::given && (i == 0 || group != groups[static_cast<std::size_t>(i - 1)])) {
                const reference::RetracedRow& source = moment == ScaleMoment::group_start ? row : at_block_start;
                const auto from = source.bound.begin() + i;
                check_scale(source.weights, i, grid.group_size, *std::max_element(from, from + grid.group_size), grid,
                            scale, zero);
            }
            const double code = result.codes[static_cast<std::size_t>(r * n + i)];
            const double wanted = std::clamp(row.weights[i] / scale + zero, 0.0, largest_code);
            ASSERT_LE(code, largest_code);
            ASSERT_LE(std::fabs(code - wanted), 0.5 + row.bound[i] / scale + 2 * float32_roundoff * largest_code)
                << "column " << i;
            ASSERT_EQ(result.values(r, i), static_cast<float>(scale * (code - zero))) << "column " << i;
            reference::spread_error(row, inverse.view(), i, result.values(r, i));
            if (::testing::Test::HasFatalFailure()) return;
        }
    }
}

TEST_P(ColumnsTest, EveryGridRoundsToNearestAndSpreadsErrors) {
    const std::int64_t n = 512;
    const HostMatrix inverse = sparse_inverse(n, 1);
    HostMatrix weights = random_matrix(67, n, 2, 0.05F);
    for (std::int64_t i = 0; i < n; ++i) {
        weights(1, i) = 0;                         // nothing to scale
        weights(2, i) = std::fabs(weights(2, i));  // one-sided
        weights(3, i) = -std::fabs(weights(3, i));
        weights(4, i) *= i == 300 ? 1000.0F : 1.0F;  // an outlier
    }
    for (const int bits : {2, 3, 4, 8})
        for (const bool symmetric : {true, false})
            for (const std::int64_t group_size :
                 {std::int64_t{32}, std::int64_t{64}, std::int64_t{128}, std::int64_t{256}, n})
                for (const ScaleMoment moment : {ScaleMoment::group_start, ScaleMoment::block_start})
                    for (const ScaleType scale_type : {ScaleType::float16, ScaleType::float32}) {
                        SCOPED_TRACE(fmt::format("{} bits, symmetric {}, groups of {}, moment {}, scale type {}", bits,
                                                 symmetric, group_size, static_cast<int>(moment),
                                                 static_cast<int>(scale_type)));
                        const Grid grid{bits, group_size, symmetric, ScaleSearch::none, scale_type};
                        const auto groups = neighbours(n, group_size);
                        check_result(weights, inverse, grid, moment, groups,
                                     solve(weights, inverse, grid, moment, groups));
                        if (HasFailure()) return;
                    }
}

TEST_P(ColumnsTest, EverySizeOfMatrix) {
    // Around panels of 8, runs of 16, blocks of 128, tiles of 64 rows; one group a row, as odd widths need.
    for (const std::int64_t rows : {0, 1, 63, 64, 65, 130})
        for (const std::int64_t n : {1, 7, 8, 9, 15, 16, 17, 127, 128, 129, 257}) {
            SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(n));
            const HostMatrix weights = random_matrix(rows, n, 3);
            const HostMatrix inverse = sparse_inverse(n, 4);
            const Grid grid{4, n, false, ScaleSearch::none, ScaleType::float16};
            const auto groups = neighbours(n, n);
            check_result(weights, inverse, grid, ScaleMoment::group_start, groups,
                         solve(weights, inverse, grid, ScaleMoment::group_start, groups));
        }
}

TEST_P(ColumnsTest, LongRowsPassThroughSeveralChunks) {
    const std::int64_t n = 1024 + 128 + 32;
    const HostMatrix weights = random_matrix(5, n, 3);
    const HostMatrix inverse = sparse_inverse(n, 4);
    const Grid grid{3, 32, true, ScaleSearch::none, ScaleType::float16};
    const auto groups = neighbours(n, 32);
    check_result(weights, inverse, grid, ScaleMoment::group_start, groups,
                 solve(weights, inverse, grid, ScaleMoment::group_start, groups));
}

TEST_P(ColumnsTest, ScaleSearchFindsTheBestShrunkenRange) {
    const std::int64_t n = 256;
    const HostMatrix weights = random_matrix(20, n, 5, 0.02F);
    const HostMatrix inverse = sparse_inverse(n, 6);
    for (const int bits : {2, 4})
        for (const bool symmetric : {true, false})
            for (const std::int64_t group_size : {std::int64_t{64}, n}) {
                SCOPED_TRACE(fmt::format("{} bits, symmetric {}, groups of {}", bits, symmetric, group_size));
                const Grid grid{bits, group_size, symmetric, ScaleSearch::mse, ScaleType::float16};
                const auto groups = neighbours(n, group_size);
                check_result(weights, inverse, grid, ScaleMoment::group_start, groups,
                             solve(weights, inverse, grid, ScaleMoment::group_start, groups));
            }
}

TEST_P(ColumnsTest, GivenScalesAndScatteredGroupsAreUsedAsTheyAre) {
    const std::int64_t n = 192;
    const HostMatrix weights = random_matrix(70, n, 7);
    const HostMatrix inverse = sparse_inverse(n, 8);
    const Grid grid{4, 64, false, ScaleSearch::none, ScaleType::float32};
    std::vector<std::int32_t> groups(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i)
        groups[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 5 % 3);
    Result given;
    given.scales = HostMatrix(70, 3);
    for (std::size_t i = 0; i < given.scales.values.size(); ++i) {
        given.scales.values[i] = 0.1F + 0.01F * static_cast<float>(i % 13);
        given.zeros.push_back(static_cast<std::uint8_t>(i % 16));
    }
    const Result result = solve(weights, inverse, grid, ScaleMoment::given, groups, &given);
    EXPECT_EQ(result.scales.values, given.scales.values);
    EXPECT_EQ(result.zeros, given.zeros);
    check_result(weights, inverse, grid, ScaleMoment::given, groups, result);
}

TEST_P(ColumnsTest, ARowDoesNotDependOnTheOthers) {
    const std::int64_t n = 256;
    const HostMatrix weights = random_matrix(150, n, 9);
    const HostMatrix inverse = sparse_inverse(n, 10);
    const Grid grid{4, 64, false, ScaleSearch::mse, ScaleType::float16};
    const auto groups = neighbours(n, 64);
    const Result all = solve(weights, inverse, grid, ScaleMoment::group_start, groups);
    for (const std::int64_t first : {0, 1, 64, 149}) {
        const std::int64_t rows = first == 64 ? 70 : 1;
        HostMatrix part(rows, n);
        std::copy_n(weights.values.begin() + first * n, rows * n, part.values.begin());
        const Result alone = solve(part, inverse, grid, ScaleMoment::group_start, groups);
        EXPECT_TRUE(std::equal(alone.codes.begin(), alone.codes.end(), all.codes.begin() + first * n));
        EXPECT_TRUE(
            std::equal(alone.scales.values.begin(), alone.scales.values.end(), all.scales.values.begin() + first * 4));
        EXPECT_TRUE(std::equal(alone.zeros.begin(), alone.zeros.end(), all.zeros.begin() + first * 4));
    }
    EXPECT_TRUE(same_for_any_threads([&] {
        const Result again = solve(weights, inverse, grid, ScaleMoment::group_start, groups);
        return std::make_pair(again.codes, again.values.values);
    }));
}

TEST_P(ColumnsTest, HalfPrecisionScalesNeitherVanishNorOverflow) {
    const std::int64_t n = 32;
    HostMatrix weights(2, n, 1e-12F);
    for (std::int64_t i = 0; i < n; ++i)
        weights(1, i) = 1e9F;
    HostMatrix inverse(n, n);
    for (std::int64_t i = 0; i < n; ++i)
        inverse(i, i) = 1;
    const Grid grid{4, n, true, ScaleSearch::none, ScaleType::float16};
    const Result result = solve(weights, inverse, grid, ScaleMoment::group_start, neighbours(n, n));
    EXPECT_EQ(result.scales(0, 0), 0x1p-24F);  // half's smallest
    EXPECT_EQ(result.scales(1, 0), 65504.0F);  // and largest
    EXPECT_EQ(result.codes[0], 8);
    EXPECT_EQ(result.codes[static_cast<std::size_t>(n)], 15);
}

TEST_P(ColumnsTest, FindScalesIsWhatTheLoopFindsAtAGroupsStart) {
    const std::int64_t n = 256;
    const HostMatrix weights = random_matrix(70, n, 11);
    HostMatrix identity(n, n);
    for (std::int64_t i = 0; i < n; ++i)
        identity(i, i) = 1;
    for (const ScaleSearch search : {ScaleSearch::none, ScaleSearch::mse})
        for (const std::int64_t group_size : {std::int64_t{32}, n}) {
            const Grid grid{4, group_size, false, search, ScaleType::float16};
            const Result loop = solve(weights, identity, grid, ScaleMoment::group_start, neighbours(n, group_size));
            const DeviceMatrix device = upload_float32(weights);
            const DeviceMatrix scales = device_matrix(70, n / group_size, DType::float32);
            const Buffer zeros = backend->allocate(static_cast<std::size_t>(70 * n / group_size));
            backend->find_scales(device.view.float32(), grid, scales.view.float32(),
                                 zeros.matrix<std::uint8_t>(70, n / group_size));
            EXPECT_EQ(download(scales.view).values, loop.scales.values);
            EXPECT_EQ(download_vector<std::uint8_t>(zeros), loop.zeros);
        }
}

TEST_P(ColumnsTest, GroupsThatDoNotFitAreRefused) {
    const HostMatrix weights = random_matrix(1, 96, 1);
    const HostMatrix inverse = sparse_inverse(96, 2);
    const auto run = [&](std::int64_t group_size) {
        const Grid grid{4, group_size, true, ScaleSearch::none, ScaleType::float16};
        solve(weights, inverse, grid, ScaleMoment::group_start, neighbours(96, group_size));
    };
    EXPECT_NO_THROW(run(32));
    EXPECT_NO_THROW(run(96));
    EXPECT_THROW(run(48), Failure);  // would straddle blocks of 128 in a wider matrix
    EXPECT_THROW(run(64), Failure);
    EXPECT_THROW(run(12), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
