// The GPU's column loop, run on the host (host_kernels.hpp), against the CPU's: the same operations in the same order
// give the same bytes. So indexing, edges and phases are right on machines without a GPU; columns_test.cpp runs the
// kernels themselves where one is.
#include <gtest/gtest.h>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/lanes.hpp"
#include "backends.hpp"
#include "host_kernels.hpp"
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

using Order = HostThreads::Order;

void expect_the_cpus_result(const Problem& problem,
                            const std::vector<Order>& orders = {Order::forward, Order::backward, Order::shuffled}) {
    SCOPED_TRACE(fmt::format("{} x {}, {} bits, symmetric {}, groups of {}, moment {}, half scales {}",
                             problem.weights.rows, problem.weights.cols, problem.grid.bits, problem.grid.symmetric,
                             problem.grid.group_size, static_cast<int>(problem.moment),
                             problem.grid.scale_type == ScaleType::float16));
    Problem expected = problem;
    CpuBackend().quantize_columns(expected.view());
    for (const Order order : orders) {
        Problem found = problem;
        HostLaunches(found.view(), order);
        expect_same(found, expected);
    }
}

TEST(CudaColumnsOnHost, EverySizeOfMatrix) {
    // Around tiles of 32 rows, runs of 16, blocks of 128.
    for (const std::int64_t rows : {0, 1, 31, 32, 33, 65})
        for (const std::int64_t cols : {1, 7, 15, 16, 17, 127, 128, 129, 257}) {
            const Grid grid{4, cols, false, ScaleSearch::none, ScaleType::float16};
            expect_the_cpus_result(Problem(rows, cols, grid, ScaleMoment::group_start));
            if (HasFatalFailure()) return;
        }
}

TEST(CudaColumnsOnHost, PanelsAndGroupsAcrossThem) {
    // Around panels of 1024 columns, and of 1152, which three groups of 384 make.
    for (const std::int64_t cols : {1023, 1024, 1025, 2100}) {
        const Grid grid{3, cols, true, ScaleSearch::none, ScaleType::float32};
        expect_the_cpus_result(Problem(3, cols, grid, ScaleMoment::group_start));
        if (HasFatalFailure()) return;
    }
    for (const std::int64_t group : {32, 256, 384})
        for (const ScaleMoment moment : {ScaleMoment::group_start, ScaleMoment::block_start}) {
            const Grid grid{4, group, false, ScaleSearch::none, ScaleType::float16};
            expect_the_cpus_result(Problem(3, 2304, grid, moment));
            if (HasFatalFailure()) return;
        }
}

TEST(CudaColumnsOnHost, EveryGrid) {
    const std::int64_t cols = 256;
    for (const int bits : {2, 3, 4, 8})
        for (const bool symmetric : {true, false})
            for (const std::int64_t group :
                 {std::int64_t{16}, std::int64_t{32}, std::int64_t{64}, std::int64_t{128}, cols})
                for (const ScaleMoment moment :
                     {ScaleMoment::group_start, ScaleMoment::block_start, ScaleMoment::given})
                    for (const ScaleType type : {ScaleType::float16, ScaleType::float32}) {
                        Problem problem(34, cols, {bits, group, symmetric, ScaleSearch::none, type}, moment);
                        for (std::int64_t i = 0; i < cols; ++i) {
                            problem.weights(1, i) = 0;
                            problem.weights(2, i) = std::fabs(problem.weights(2, i));
                            problem.weights(3, i) = -std::fabs(problem.weights(3, i));
                            problem.weights(4, i) *= i == 100 ? 1e9F : 1.0F;
                        }
                        expect_the_cpus_result(problem, {Order::shuffled});
                        if (HasFatalFailure()) return;
                    }
}

TEST(CudaColumnsOnHost, ScatteredGroupsThatAreGiven) {
    Problem problem(40, 192, {4, 64, false, ScaleSearch::none, ScaleType::float32}, ScaleMoment::given);
    for (std::size_t i = 0; i < problem.groups.size(); ++i)
        problem.groups[i] = static_cast<std::int32_t>(i * 5 % 3);
    for (std::size_t i = 0; i < problem.zeros.size(); ++i) {
        problem.scales.values[i] = 0.005F + 0.001F * static_cast<float>(i % 13);
        problem.zeros[i] = static_cast<std::uint8_t>(i % 16);
    }
    expect_the_cpus_result(problem);
}

/// Scales by the GPU's search and by the CPU's, which may take products and sums together in another way: the same step
/// nearly always, and an error that is as small always.
TEST(CudaColumnsOnHost, ScaleSearchIsAsGoodAsTheCpus) {
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
                std::vector<HostMatrix> found;
                std::vector<std::uint8_t> zeros(expected_zeros.size());
                for (const Order order : {Order::forward, Order::backward}) {
                    found.emplace_back(70, count);
                    for (std::int64_t tile = 0; tile < cuda::ceil_div(70, cuda::BlockShape::rows); ++tile)
                        for (std::int64_t group = 0; group < count; ++group)
                            cuda::find_group_scales(
                                HostThreads(order), *poisoned<cuda::ScaleMemory>(),
                                plain(weights.view().block(0, group * size, 70, size)), rule_of(grid), tile, group,
                                {found.back().values.data(), 70, count, count}, {zeros.data(), 70, count, count});
                }
                EXPECT_EQ(found[0].values, found[1].values);
                int same = 0;
                for (std::int64_t r = 0; r < 70; ++r)
                    for (std::int64_t g = 0; g < count; ++g) {
                        const auto at = static_cast<std::size_t>(r * count + g);
                        same += found[0](r, g) == expected(r, g) ? 1 : 0;
                        std::vector<double> values;
                        for (std::int64_t i = g * size; i < (g + 1) * size; ++i)
                            values.push_back(weights(r, i));
                        const auto error = [&](double scale, double zero) {
                            return reference::grid_error(values, 0, size, scale, zero, bits);
                        };
                        // A float32 sum of `size` terms, each a power that amplifies errors 2.4 times.
                        ASSERT_LE(error(found[0](r, g), zeros[at]),
                                  error(expected(r, g), expected_zeros[at]) *
                                      (1 + (static_cast<double>(size) + 30) * float32_roundoff));
                    }
                EXPECT_GE(same, 0.98 * static_cast<double>(70 * count));
            }
}

TEST(CudaColumnsOnHost, SearchInsideABlockIsTheSearchBesideIt) {
    for (const std::int64_t size : {32, 64, 128}) {
        Problem problem(33, 128, {4, size, false, ScaleSearch::mse, ScaleType::float16}, ScaleMoment::block_start);
        Problem beside = problem;
        for (std::int64_t tile = 0; tile < 2; ++tile)
            for (std::int64_t begin = 0; begin < 128; begin += size)
                cuda::find_group_scales(HostThreads(Order::forward), *poisoned<cuda::ScaleMemory>(),
                                        plain(problem.weights.view().block(0, begin, 33, size)), rule_of(problem.grid),
                                        tile, problem.groups[static_cast<std::size_t>(begin)],
                                        plain(beside.view().scales), plain(beside.view().zeros));
        for (const Order order : {Order::forward, Order::shuffled}) {
            Problem inside = problem;
            HostLaunches(inside.view(), order);
            EXPECT_EQ(inside.scales.values, beside.scales.values);
            EXPECT_EQ(inside.zeros, beside.zeros);
        }
    }
}

TEST(CudaColumnsOnHost, OneWeightIsRoundedAsTheCpuRoundsIt) {
    std::mt19937 generator(3);
    constexpr std::int64_t count = lanes::count;
    for (int round = 0; round < 2000; ++round) {
        const float largest_code = static_cast<float>((1 << (std::vector<int>{2, 3, 4, 8})[generator() % 4]) - 1);
        float value[count], scale[count], zero[count], rounded[count];
        std::uint8_t code[count];
        for (std::int64_t i = 0; i < count; ++i) {
            scale[i] = std::exp2(static_cast<float>(generator() % 40) - 24.0F) *
                       (1 + static_cast<float>(generator() % 1024) / 1024);
            zero[i] = static_cast<float>(generator() % static_cast<unsigned>(largest_code + 1));
            // Many ties, and values far outside the grid.
            value[i] = scale[i] * (static_cast<float>(generator() % 2048) / 2 - 512);
            if (i % 7 == 0) value[i] *= 1e20F;
        }
        lanes::round_to_grid(value, scale, zero, largest_code, rounded, code);
        for (std::int64_t i = 0; i < count; ++i) {
            const cuda::Rounded found = cuda::round_to_grid(value[i], {scale[i], zero[i]}, largest_code);
            ASSERT_EQ(found.value, rounded[i]);
            ASSERT_EQ(found.code, code[i]);
        }
    }
}

/// The kernel itself, where a GPU is: within one block no product of cuBLAS is in the way of the CPU's bytes.
TEST(CudaColumns, OneBlockGivesTheCpusBytes) {
    std::unique_ptr<Backend> cuda;
    try {
        cuda = make_backend("cuda");
    } catch (const InvalidInput& error) {
        GTEST_SKIP() << error.what();
    }
    const auto on_device = [&](const auto& values) {
        Buffer buffer = cuda->allocate(values.size() * sizeof(values[0]));
        cuda->copy_to_device(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    };
    for (const std::int64_t rows : {1, 33, 200})
        for (const std::int64_t cols : {1, 16, 17, 64, 100, 128})
            for (const std::int64_t group : {cols, std::int64_t{32}})
                for (const ScaleMoment moment :
                     {ScaleMoment::group_start, ScaleMoment::block_start, ScaleMoment::given}) {
                    if (cols % group != 0) continue;
                    SCOPED_TRACE(
                        fmt::format("{} x {}, groups of {}, moment {}", rows, cols, group, static_cast<int>(moment)));
                    Problem problem(rows, cols, {4, group, false, ScaleSearch::none, ScaleType::float16}, moment);
                    Problem expected = problem;
                    CpuBackend().quantize_columns(expected.view());
                    const Buffer weights = on_device(problem.weights.values);
                    const Buffer inverse = on_device(problem.inverse.values);
                    const Buffer scales = on_device(problem.scales.values);
                    const Buffer zeros = on_device(problem.zeros);
                    const Buffer codes = on_device(problem.codes);
                    const Buffer groups = on_device(problem.groups);
                    cuda->quantize_columns(
                        {weights.matrix<float>(rows, cols), inverse.matrix<const float>(cols, cols), problem.grid,
                         moment, groups.as<std::int32_t>(), codes.matrix<std::uint8_t>(rows, cols),
                         scales.matrix<float>(rows, cols / group), zeros.matrix<std::uint8_t>(rows, cols / group)});
                    const auto back = [&](const Buffer& buffer, auto& values) {
                        cuda->copy_to_host(values.data(), buffer.data(), buffer.bytes());
                    };
                    back(weights, problem.weights.values);
                    back(scales, problem.scales.values);
                    back(zeros, problem.zeros);
                    back(codes, problem.codes);
                    expect_same(problem, expected);
                    if (HasFatalFailure()) return;
                }
}

TEST(CudaColumnsOnHost, PanelsHoldWholeGroups) {
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
