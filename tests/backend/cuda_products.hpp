// A GPU's memory and matrix products, for tests of what is made of them; skipped, visibly, where no GPU is.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "backend/cuda/check.hpp"
#include "backend/cuda/products.hpp"
#include "backends.hpp"

namespace fairgptq::testing {

class WithCudaProducts : public ::testing::Test {
  protected:
    void SetUp() override {
        if (cuda::device_count() == 0) GTEST_SKIP() << "this machine has no GPU";
        memory = std::make_unique<cuda::Memory>(0);
        products = std::make_unique<cuda::Products>(*memory);
    }
    std::unique_ptr<cuda::Memory> memory;
    std::unique_ptr<cuda::Products> products;
};

/// 300 rows in fixed order at once, then some of them: the same bytes, and the right ones.
inline void expect_rows_independent(cuda::Memory& memory, cuda::Products& products, std::int64_t cols,
                                    std::int64_t inner) {
    constexpr std::int64_t all = 300;
    for (const cuda::Transpose transpose : {cuda::Transpose::no, cuda::Transpose::yes})
        for (const auto& [gap, beta] : {std::pair(0, 0.0F), std::pair(1, 0.0F), std::pair(4, 1.0F)}) {
            SCOPED_TRACE(fmt::format("{} columns, inner size {}, gap {}, transposed {}, beta {}", cols, inner, gap,
                                     transpose == cuda::Transpose::yes, beta));
            const bool turned = transpose == cuda::Transpose::yes;
            const std::int64_t stride = inner + gap;
            const std::int64_t stride_c = cols + gap;
            const HostMatrix a = random_matrix(all, stride, 1);
            const HostMatrix b = random_matrix(turned ? cols : inner, (turned ? inner : cols) + gap, 2);
            const HostMatrix start = random_matrix(all, stride_c, 3);
            const auto on_device = [&](const float* values, std::int64_t count) {
                Buffer buffer = memory.allocate(static_cast<std::size_t>(count) * sizeof(float));
                memory.copy_to_device(buffer.data(), values, buffer.bytes());
                return buffer;
            };
            const Buffer device_a = on_device(a.values.data(), all * stride);
            const Buffer device_b = on_device(b.values.data(), b.rows * b.cols);
            const auto rows_of = [&](std::int64_t first, std::int64_t rows) {
                const Buffer c = on_device(start.values.data() + first * stride_c, rows * stride_c);
                products.fixed_order(transpose, -2, {device_a.as<const float>() + first * stride, rows, inner, stride},
                                     {device_b.as<const float>(), turned ? cols : inner, turned ? inner : cols, b.cols},
                                     beta, {c.as<float>(), rows, cols, stride_c});
                std::vector<float> values(static_cast<std::size_t>(rows * stride_c));
                memory.copy_to_host(values.data(), c.data(), c.bytes());
                return values;
            };
            const std::vector<float> whole = rows_of(0, all);
            for (const std::int64_t rows : {1, 2, 7, 64, 65}) {
                const std::vector<float> part = rows_of(128, rows);
                ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 128 * stride_c)) << rows;
            }
            for (const std::int64_t row : {5, 299})
                for (std::int64_t col = 0; col < stride_c; ++col) {
                    const float found = whole[static_cast<std::size_t>(row * stride_c + col)];
                    if (col >= cols) {
                        ASSERT_EQ(found, start(row, col)) << "a gap";
                        continue;
                    }
                    double sum = static_cast<double>(beta) * static_cast<double>(start(row, col));
                    double size = std::fabs(sum);
                    for (std::int64_t k = 0; k < inner; ++k) {
                        const double term =
                            -2 * static_cast<double>(a(row, k)) * static_cast<double>(turned ? b(col, k) : b(k, col));
                        sum += term;
                        size += std::fabs(term);
                    }
                    ASSERT_NEAR(found, sum, static_cast<double>(inner + 2) * float32_roundoff * size + 1e-30) << col;
                }
        }
}

}  // namespace fairgptq::testing
