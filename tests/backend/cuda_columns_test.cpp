// The GPU's column loop against the CPU's: within one block of columns no product of cuBLAS is in the way, and the same
// operations in the same order give the same bytes. (columns_test.cpp has matrices of many blocks.)
#include <gtest/gtest.h>

#include "backend/cpu/backend.hpp"
#include "backend/cuda/column_walk.hpp"
#include "backends.hpp"
#include "reference/columns.hpp"

namespace fairgptq::testing {
namespace {

/// A problem whose memory a result is compared by.
struct Problem {
    HostMatrix weights, inverse, scales;
    std::vector<std::uint8_t> codes, zeros;
    std::vector<std::int32_t> groups;
    Grid grid;
    ScaleMoment moment;

    Problem(std::int64_t rows, std::int64_t cols, const Grid& chosen, ScaleMoment when)
        : weights(random_matrix(rows, cols, 1, 0.05F)), inverse(cols, cols), grid(chosen), moment(when) {
        std::mt19937 generator(2);
        for (std::int64_t j = 0; j < cols; ++j) {
            inverse(j, j) = 0.5F + static_cast<float>(generator() % 1000) / 1000;
            for (std::int64_t i = 0; i < j; ++i)
                inverse(i, j) = (static_cast<float>(generator() % 1000) / 1000 - 0.5F) / static_cast<float>(cols);
        }
        const std::int64_t count = cols / grid.group_size;
        scales = HostMatrix(rows, count, 0.01F);
        codes.assign(weights.values.size(), 77);
        zeros.assign(scales.values.size(), 5);
        for (std::int64_t i = 0; i < cols; ++i)  // groups in another order than the columns'
            groups.push_back(static_cast<std::int32_t>(count - 1 - i / grid.group_size));
    }
    ColumnProblem view() {
        return {{weights.values.data(), weights.rows, weights.cols},
                inverse.view(),
                grid,
                moment,
                groups.data(),
                {codes.data(), weights.rows, weights.cols},
                {scales.values.data(), scales.rows, scales.cols},
                {zeros.data(), scales.rows, scales.cols}};
    }
};

void expect_same(const Problem& found, const Problem& expected) {
    ASSERT_EQ(found.scales.values, expected.scales.values);
    ASSERT_EQ(found.zeros, expected.zeros);
    ASSERT_EQ(found.codes, expected.codes);
    ASSERT_EQ(found.weights.values, expected.weights.values);
}

class CudaColumns : public ::testing::Test {
  protected:
    void SetUp() override {
        try {
            cuda = make_backend("cuda");
        } catch (const InvalidInput& error) {
            GTEST_SKIP() << error.what();
        }
    }
    template <class Values>
    Buffer on_device(const Values& values) const {
        Buffer buffer = cuda->allocate(values.size() * sizeof(values[0]));
        cuda->copy_to_device(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    }
    template <class Values>
    void back(const Buffer& buffer, Values& values) const {
        cuda->copy_to_host(values.data(), buffer.data(), buffer.bytes());
    }
    /// @param gap between a row of the inverse and the next: rows that are not aligned for vectors
    Problem solved(Problem problem, std::int64_t gap = 0) const {
        const std::int64_t rows = problem.weights.rows, cols = problem.weights.cols, groups = problem.scales.cols;
        HostMatrix spread(cols, cols + gap);
        for (std::int64_t r = 0; r < cols; ++r)
            for (std::int64_t c = 0; c < cols; ++c)
                spread(r, c) = problem.inverse(r, c);
        const Buffer weights = on_device(problem.weights.values), inverse = on_device(spread.values),
                     scales = on_device(problem.scales.values), zeros = on_device(problem.zeros),
                     codes = on_device(problem.codes), group = on_device(problem.groups);
        cuda->quantize_columns({weights.matrix<float>(rows, cols),
                                {inverse.as<const float>(), cols, cols, cols + gap},
                                problem.grid,
                                problem.moment,
                                group.as<std::int32_t>(),
                                codes.matrix<std::uint8_t>(rows, cols),
                                scales.matrix<float>(rows, groups),
                                zeros.matrix<std::uint8_t>(rows, groups)});
        back(weights, problem.weights.values);
        back(scales, problem.scales.values);
        back(zeros, problem.zeros);
        back(codes, problem.codes);
        return problem;
    }
    void expect_the_cpus_result(const Problem& problem, std::int64_t gap = 0) const {
        SCOPED_TRACE(fmt::format("{} x {}, {} bits, symmetric {}, groups of {}, moment {}, half scales {}, gap {}",
                                 problem.weights.rows, problem.weights.cols, problem.grid.bits, problem.grid.symmetric,
                                 problem.grid.group_size, static_cast<int>(problem.moment),
                                 problem.grid.scale_type == ScaleType::float16, gap));
        Problem expected = problem;
        CpuBackend().quantize_columns(expected.view());
        expect_same(solved(problem, gap), expected);
    }
    /// Scales and zeros of `weights` as the GPU finds them.
    std::pair<HostMatrix, std::vector<std::uint8_t>> found_scales(const HostMatrix& weights, const Grid& grid) const {
        const std::int64_t count = weights.cols / grid.group_size;
        HostMatrix scales(weights.rows, count);
        std::vector<std::uint8_t> zeros(scales.values.size());
        const Buffer device_weights = on_device(weights.values), device_scales = on_device(scales.values),
                     device_zeros = on_device(zeros);
        cuda->find_scales(device_weights.matrix<const float>(weights.rows, weights.cols), grid,
                          device_scales.matrix<float>(weights.rows, count),
                          device_zeros.matrix<std::uint8_t>(weights.rows, count));
        back(device_scales, scales.values);
        back(device_zeros, zeros);
        return {scales, zeros};
    }
    std::unique_ptr<Backend> cuda;
};

TEST_F(CudaColumns, EverySizeOfABlock) {
    // Around tiles of 32 rows, runs of 16, and the whole block, whose inverse comes in vectors if it is aligned.
    for (const std::int64_t rows : {0, 1, 31, 32, 33, 65, 200})
        for (const std::int64_t cols : {1, 7, 15, 16, 17, 64, 100, 127, 128})
            for (const std::int64_t gap : {0, 1, 4}) {
                const Grid grid{4, cols, false, ScaleSearch::none, ScaleType::float16};
                expect_the_cpus_result(Problem(rows, cols, grid, ScaleMoment::group_start), gap);
                if (HasFatalFailure()) return;
            }
}

TEST_F(CudaColumns, EveryGrid) {
    const std::int64_t cols = 128;
    for (const int bits : {2, 3, 4, 8})
        for (const bool symmetric : {true, false})
            for (const std::int64_t group : {16, 32, 64, 128})
                for (const ScaleMoment moment :
                     {ScaleMoment::group_start, ScaleMoment::block_start, ScaleMoment::given})
                    for (const ScaleType scale_type : {ScaleType::float16, ScaleType::float32}) {
                        Problem problem(34, cols, {bits, group, symmetric, ScaleSearch::none, scale_type}, moment);
                        for (std::int64_t i = 0; i < cols; ++i) {
                            problem.weights(1, i) = 0;
                            problem.weights(2, i) = std::fabs(problem.weights(2, i));
                            problem.weights(3, i) = -std::fabs(problem.weights(3, i));
                            problem.weights(4, i) *= i == 100 ? 1e9F : 1.0F;
                            // Ties, as scales are powers of two in this row: 15 steps of 1/16.
                            problem.weights(5, i) = static_cast<float>(i % 31 - 15) / 32;
                            problem.inverse(i, i) = i % 2 == 0 ? 1.0F : problem.inverse(i, i);
                        }
                        expect_the_cpus_result(problem);
                        if (HasFatalFailure()) return;
                    }
}

TEST_F(CudaColumns, ScatteredGroupsThatAreGiven) {
    Problem problem(40, 96, {4, 32, false, ScaleSearch::none, ScaleType::float32}, ScaleMoment::given);
    for (std::size_t i = 0; i < problem.groups.size(); ++i)
        problem.groups[i] = static_cast<std::int32_t>(i * 5 % 3);
    for (std::size_t i = 0; i < problem.zeros.size(); ++i) {
        problem.scales.values[i] = 0.005F + 0.001F * static_cast<float>(i % 13);
        problem.zeros[i] = static_cast<std::uint8_t>(i % 16);
    }
    expect_the_cpus_result(problem);
}

/// What divides by multiplying has to fall as a division does, where a float can hold what it needs.
TEST_F(CudaColumns, TiesAndClippedValuesOfEveryScale) {
    constexpr std::int64_t cols = 128;
    const std::vector<float> row_scales = {0x1p-126F, 1.5F * 0x1p-126F, 0x1.234568p-100F, 0x1p-24F, 0x1.8p-20F,
                                           0.1F,      1.0F / 3,         0x1.fffffep-1F,   1,        0x1.000002p+0F,
                                           7.5F,      65504.0F,         0x1.8p+90F,       3e30F,    0x1p+117F};
    const auto rows = std::ssize(row_scales);
    for (const int bits : {2, 3, 4, 8}) {
        Problem problem(rows, cols, {bits, 16, false, ScaleSearch::none, ScaleType::float32}, ScaleMoment::given);
        // Each column is on its own: an error that is too small for a correction cannot move a later tie.
        for (std::int64_t i = 0; i < cols; ++i)
            for (std::int64_t j = i + 1; j < cols; ++j)
                problem.inverse(i, j) = 0;
        const int largest = (1 << bits) - 1;
        for (std::int64_t r = 0; r < rows; ++r) {
            const float scale = row_scales[static_cast<std::size_t>(r)];
            for (std::int64_t g = 0; g < problem.scales.cols; ++g) {
                problem.scales(r, g) = scale;
                problem.zeros[static_cast<std::size_t>(r * problem.scales.cols + g)] =
                    static_cast<std::uint8_t>(g * largest / (problem.scales.cols - 1));
            }
            for (std::int64_t i = 0; i < cols; ++i) {
                const auto step = static_cast<float>(i % (2 * largest + 3) - largest - 1);
                const float tie = scale * (step + 0.5F);
                const float values[] = {tie,
                                        std::nextafter(tie, 0.0F),
                                        std::nextafter(tie, 2 * tie),
                                        scale * step,
                                        1e30F,
                                        -1e30F,
                                        0.0F,
                                        -0.0F,
                                        0x1p-149F,
                                        -0x1p-127F};
                problem.weights(r, i) = values[(i / 2 + r) % static_cast<std::int64_t>(std::size(values))];
            }
        }
        expect_the_cpus_result(problem);
        if (HasFatalFailure()) return;
    }
}

TEST_F(CudaColumns, TiesOfHalfPrecisionWeights) {
    // As checkpoints have them: 8 bits of mantissa, so many weights lie on ties, and errors of all columns add up.
    for (const ScaleType type : {ScaleType::float16, ScaleType::float32})
        for (const bool symmetric : {true, false})
            for (const std::int64_t group : {32, 128}) {
                Problem problem(64, 128, {4, group, symmetric, ScaleSearch::none, type}, ScaleMoment::group_start);
                for (float& value : problem.weights.values)
                    value = std::round(value * 256) / 256;
                for (std::int64_t j = 0; j < 128; ++j)
                    for (std::int64_t i = 0; i < j; ++i)
                        problem.inverse(i, j) = i % 5 == 0 ? 0.5F * problem.inverse(i, i) : 0;
                expect_the_cpus_result(problem);
                if (HasFatalFailure()) return;
            }
}

/// Scales by the GPU's search and by the CPU's, which may take products and sums together in another way: the same step
/// nearly always, and an error that is as small always.
TEST_F(CudaColumns, ScaleSearchIsAsGoodAsTheCpus) {
    const HostMatrix weights = random_matrix(70, 768, 5, 0.02F);
    for (const int bits : {2, 4})
        for (const bool symmetric : {true, false})
            for (const std::int64_t size : {32, 96, 128, 256, 768}) {
                SCOPED_TRACE(fmt::format("{} bits, symmetric {}, groups of {}", bits, symmetric, size));
                const Grid grid{bits, size, symmetric, ScaleSearch::mse, ScaleType::float16};
                const std::int64_t count = 768 / size;
                HostMatrix expected(70, count);
                std::vector<std::uint8_t> expected_zeros(expected.values.size());
                CpuBackend().find_scales(weights.view(), grid, {expected.values.data(), 70, count},
                                         {expected_zeros.data(), 70, count});
                const auto [scales, zeros] = found_scales(weights, grid);
                int same = 0;
                for (std::int64_t r = 0; r < 70; ++r)
                    for (std::int64_t g = 0; g < count; ++g) {
                        const auto at = static_cast<std::size_t>(r * count + g);
                        same += scales(r, g) == expected(r, g) ? 1 : 0;
                        std::vector<double> values;
                        for (std::int64_t i = g * size; i < (g + 1) * size; ++i)
                            values.push_back(weights(r, i));
                        const auto error = [&](double scale, double zero) {
                            return reference::grid_error(values, 0, size, scale, zero, bits);
                        };
                        // A float32 sum of `size` terms, each a power that amplifies errors 2.4 times.
                        ASSERT_LE(error(scales(r, g), zeros[at]),
                                  error(expected(r, g), expected_zeros[at]) *
                                      (1 + (static_cast<double>(size) + 30) * float32_roundoff));
                    }
                EXPECT_GE(same, 0.98 * static_cast<double>(70 * count));
            }
}

TEST_F(CudaColumns, SearchInsideABlockIsTheSearchBesideIt) {
    for (const std::int64_t size : {32, 64, 128}) {
        const Problem problem(33, 128, {4, size, false, ScaleSearch::mse, ScaleType::float16},
                              ScaleMoment::block_start);
        const auto [scales, zeros] = found_scales(problem.weights, problem.grid);
        const Problem inside = solved(problem);
        for (std::int64_t r = 0; r < scales.rows; ++r)
            for (std::int64_t g = 0; g < scales.cols; ++g) {
                const std::int64_t name = problem.groups[static_cast<std::size_t>(g * size)];
                ASSERT_EQ(inside.scales(r, name), scales(r, g));
                ASSERT_EQ(inside.zeros[static_cast<std::size_t>(r * scales.cols + name)],
                          zeros[static_cast<std::size_t>(r * scales.cols + g)]);
            }
    }
}

TEST(CudaColumnWalk, PanelsHoldWholeGroups) {
    EXPECT_EQ(cuda::panel_columns(0, 4096), 1024);
    EXPECT_EQ(cuda::panel_columns(0, 576), 576);
    EXPECT_EQ(cuda::panel_columns(256, 4096), 1024);
    EXPECT_EQ(cuda::panel_columns(384, 28672), 1152);
    EXPECT_EQ(cuda::panel_columns(2048, 28672), 2048);
    EXPECT_EQ(cuda::panel_columns(28672, 28672), 1024);  // the whole row: found before the first update
    EXPECT_TRUE(cuda::groups_fit(384, 1152));
    EXPECT_TRUE(cuda::groups_fit(96, 96));
    EXPECT_FALSE(cuda::groups_fit(48, 96));
    EXPECT_FALSE(cuda::groups_fit(192, 384));
    EXPECT_FALSE(cuda::groups_fit(0, 128));
}

}  // namespace
}  // namespace fairgptq::testing
