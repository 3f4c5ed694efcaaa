// The one product whose bytes the solver's contract rests on: a row of it has the same, whatever rows are beside it.
#include <gtest/gtest.h>

#include "backend/cuda/check.hpp"
#include "backend/cuda/products.hpp"
#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class CudaProducts : public ::testing::Test {
  protected:
    void SetUp() override {
        if (cuda::device_count() == 0) GTEST_SKIP() << "this machine has no GPU";
        memory = std::make_unique<cuda::Memory>(0);
        products = std::make_unique<cuda::Products>(*memory);
    }
    std::unique_ptr<cuda::Memory> memory;
    std::unique_ptr<cuda::Products> products;
};

TEST_F(CudaProducts, ARowInFixedOrderDoesNotDependOnTheRowsBesideIt) {
    constexpr std::int64_t all = 300;
    for (const cuda::Transpose transpose : {cuda::Transpose::no, cuda::Transpose::yes})
        for (const std::int64_t cols : {1, 6, 64, 129, 512})
            for (const std::int64_t inner : {1, 16, 129, 1024})
                for (const std::int64_t gap : {0, 1, 4}) {
                    SCOPED_TRACE(fmt::format("{} columns, inner size {}, gap {}, transposed {}", cols, inner, gap,
                                             transpose == cuda::Transpose::yes));
                    const std::int64_t stride = inner + gap;
                    const bool turned = transpose == cuda::Transpose::yes;
                    const HostMatrix a = random_matrix(all, stride, 1);
                    const HostMatrix b = random_matrix(turned ? cols : inner, (turned ? inner : cols) + gap, 2);
                    const auto on_device = [&](const HostMatrix& matrix) {
                        Buffer buffer = memory->allocate(matrix.values.size() * sizeof(float));
                        memory->copy_to_device(buffer.data(), matrix.values.data(), buffer.bytes());
                        return buffer;
                    };
                    const Buffer device_a = on_device(a), device_b = on_device(b);
                    const auto rows_of = [&](std::int64_t first, std::int64_t rows) {
                        const Buffer c = memory->allocate(static_cast<std::size_t>(rows * cols) * sizeof(float));
                        products->fixed_order(
                            transpose, 1, {device_a.as<const float>() + first * stride, rows, inner, stride},
                            {device_b.as<const float>(), turned ? cols : inner, turned ? inner : cols, b.cols}, 0,
                            {c.as<float>(), rows, cols});
                        std::vector<float> values(static_cast<std::size_t>(rows * cols));
                        memory->copy_to_host(values.data(), c.data(), c.bytes());
                        return values;
                    };
                    const std::vector<float> whole = rows_of(0, all);
                    for (const std::int64_t rows : {1, 2, 7, 64, 65}) {
                        const std::vector<float> part = rows_of(128, rows);
                        ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 128 * cols)) << rows;
                    }
                    double sum = 0;
                    double size = 0;
                    for (std::int64_t k = 0; k < inner; ++k) {
                        const double term = static_cast<double>(a(5, k)) *
                                            static_cast<double>(turned ? b(cols - 1, k) : b(k, cols - 1));
                        sum += term;
                        size += std::fabs(term);
                    }
                    ASSERT_NEAR(whole[static_cast<std::size_t>(5 * cols + cols - 1)], sum,
                                static_cast<double>(inner) * float32_roundoff * size + 1e-30);
                }
}

}  // namespace
}  // namespace fairgptq::testing
