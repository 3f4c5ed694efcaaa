// The one product whose bytes the solver's contract rests on: a row of it has the same, whatever rows are beside it.
#include "cuda_products.hpp"

#include <gtest/gtest.h>

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class CudaProducts : public WithCudaProducts {};

TEST_F(CudaProducts, ARowInFixedOrderDoesNotDependOnTheRowsBesideIt) {
    for (const std::int64_t cols : {1, 6, 64, 129, 512})
        for (const std::int64_t inner : {1, 16, 129, 1024})
            expect_rows_independent(*memory, *products, cols, inner);
}

/// As where cuBLASLt has no kernel; the last sizes are more than a block's.
TEST_F(CudaProducts, NorDoesItInBlocks) {
    cuda::Products blocks(*memory, {}, true);
    for (const auto& [cols, inner] :
         {std::pair(1, 1), std::pair(6, 129), std::pair(129, 16), std::pair(5, 8200), std::pair(4100, 3)})
        expect_rows_independent(*memory, blocks, cols, inner);
}

/// A product in pieces of every kind, beside float64 and beside what float32 gives.
TEST_F(CudaProducts, ASplitProductIsAsAccurateAsFloat32) {
    const cuda::SplitSizes small{16, 48, 40};
    cuda::Products split(*memory, small);
    for (const cuda::Transpose transpose : {cuda::Transpose::no, cuda::Transpose::yes})
        for (const std::int64_t rows : {1, 47, 48, 49, 100})
            for (const std::int64_t cols : {8, 16, 48, 56, 104})
                for (const std::int64_t inner : {16, 40, 48, 128})
                    for (const float beta : {0.0F, 1.0F}) {
                        SCOPED_TRACE(fmt::format("[{}, {}] · [{}, {}], transposed {}, beta {}", rows, inner, inner,
                                                 cols, transpose == cuda::Transpose::yes, beta));
                        const bool turned = transpose == cuda::Transpose::yes;
                        const HostMatrix a = random_matrix(rows, inner, 1);
                        const HostMatrix b = random_matrix(turned ? cols : inner, turned ? inner : cols, 2);
                        const HostMatrix start = random_matrix(rows, cols, 3);
                        const auto on_device = [&](const HostMatrix& matrix) {
                            Buffer buffer = memory->allocate(matrix.values.size() * sizeof(float));
                            memory->copy_to_device(buffer.data(), matrix.values.data(), buffer.bytes());
                            return buffer;
                        };
                        const Buffer device_a = on_device(a), device_b = on_device(b), c = on_device(start);
                        split.fixed_order(transpose, -2, device_a.matrix<const float>(rows, inner),
                                          device_b.matrix<const float>(b.rows, b.cols), beta,
                                          c.matrix<float>(rows, cols));
                        HostMatrix found(rows, cols);
                        memory->copy_to_host(found.values.data(), c.data(), c.bytes());
                        for (std::int64_t r = 0; r < rows; ++r)
                            for (std::int64_t col = 0; col < cols; ++col) {
                                double sum = static_cast<double>(beta) * static_cast<double>(start(r, col));
                                double size = std::fabs(sum);
                                for (std::int64_t k = 0; k < inner; ++k) {
                                    const double term = -2 * static_cast<double>(a(r, k)) *
                                                        static_cast<double>(turned ? b(col, k) : b(k, col));
                                    sum += term;
                                    size += std::fabs(term);
                                }
                                // 2⁻²³ for what the parts leave out, and sums of `inner` terms, which float32 has,
                                // too: their errors are far from adding up.
                                ASSERT_NEAR(found(r, col), sum,
                                            (static_cast<double>(inner) / 4 + 4) * float32_roundoff * size + 1e-30)
                                    << r << ", " << col;
                            }
                    }
}

/// The same of aᵀ·b, any number of rows of both.
TEST_F(CudaProducts, SoIsOneOfATransposedFactor) {
    cuda::Products split(*memory, {16, 48, 40});
    for (const std::int64_t rows : {8, 9, 48, 56, 104})
        for (const std::int64_t cols : {8, 15, 16, 56, 104})
            for (const std::int64_t inner : {1, 39, 40, 41, 128}) {
                SCOPED_TRACE(fmt::format("[{}, {}]ᵀ · [{}, {}]", inner, rows, inner, cols));
                const HostMatrix a = random_matrix(inner, rows, 1), b = random_matrix(inner, cols, 2);
                const Buffer device_a = memory->allocate(a.values.size() * sizeof(float)),
                             device_b = memory->allocate(b.values.size() * sizeof(float)),
                             c = memory->allocate(static_cast<std::size_t>(rows * cols) * sizeof(float));
                memory->copy_to_device(device_a.data(), a.values.data(), device_a.bytes());
                memory->copy_to_device(device_b.data(), b.values.data(), device_b.bytes());
                split.multiply_any(cuda::Transpose::yes, cuda::Transpose::no, device_a.matrix<float>(inner, rows),
                                   device_b.matrix<float>(inner, cols), 0, c.matrix<float>(rows, cols));
                HostMatrix found(rows, cols);
                memory->copy_to_host(found.values.data(), c.data(), c.bytes());
                for (std::int64_t r = 0; r < rows; ++r)
                    for (std::int64_t col = 0; col < cols; ++col) {
                        double sum = 0, size = 0;
                        for (std::int64_t k = 0; k < inner; ++k) {
                            const double term = static_cast<double>(a(k, r)) * static_cast<double>(b(k, col));
                            sum += term;
                            size += std::fabs(term);
                        }
                        ASSERT_NEAR(found(r, col), sum,
                                    (static_cast<double>(inner) / 4 + 4) * float32_roundoff * size + 1e-30)
                            << r << ", " << col;
                    }
            }
}

/// Tensor cores cut off where float32 rounds, always towards 0, and a split product has six times as many terms.
TEST_F(CudaProducts, ALongSplitProductLosesLittleToCutOffBits) {
    constexpr std::int64_t rows = 16, inner = 2048, cols = 64;
    cuda::Products split(*memory, {16, 4096, inner});
    const HostMatrix a = random_matrix(rows, inner, 1), b = random_matrix(inner, cols, 2);
    const Buffer device_a = memory->allocate(a.values.size() * sizeof(float)),
                 device_b = memory->allocate(b.values.size() * sizeof(float)),
                 c = memory->allocate(rows * cols * sizeof(float));
    memory->copy_to_device(device_a.data(), a.values.data(), device_a.bytes());
    memory->copy_to_device(device_b.data(), b.values.data(), device_b.bytes());
    split.fixed_order(cuda::Transpose::no, 1, device_a.matrix<const float>(rows, inner),
                      device_b.matrix<const float>(inner, cols), 0, c.matrix<float>(rows, cols));
    std::vector<float> found(rows * cols);
    memory->copy_to_host(found.data(), c.data(), c.bytes());
    double errors = 0, sizes = 0;
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t col = 0; col < cols; ++col) {
            double sum = 0;
            for (std::int64_t k = 0; k < inner; ++k) {
                sum += static_cast<double>(a(r, k)) * static_cast<double>(b(k, col));
                sizes += std::fabs(static_cast<double>(a(r, k)) * static_cast<double>(b(k, col)));
            }
            errors += std::fabs(static_cast<double>(found[static_cast<std::size_t>(r * cols + col)]) - sum);
        }
    // An addition of 8 products of the largest parts cuts half of 2⁻²³ of the sum off on average. Sums of k terms of
    // deviation 1 are √k·√(2/π) on average, so inner/8 additions cut off inner/12·√inner·√(2/π)·u, and Σ|terms| is
    // inner·2/π. With the largest parts first, the others' five times as many additions would all cut the full sum:
    // eight times that.
    const double bound = std::sqrt(static_cast<double>(inner)) / 12 * std::sqrt(std::acos(-1.0) / 2);
    EXPECT_LE(errors, bound * float32_roundoff * sizes);
}

TEST_F(CudaProducts, PartsAddUpToTheNumberItself) {
    cuda::Products split(*memory, {8, 4096, 2048});
    const std::vector<float> values{1.0F,          1.0F + 0x1p-23F, 0x1.fffffep120F, -0x1.ffdp3F,
                                    0x1.000fffp0F, 0x1p-100F,       -0x1p-7F,        0.0F};
    HostMatrix a(1, 8), identity(8, 8);
    for (std::int64_t i = 0; i < 8; ++i) {
        a(0, i) = values[static_cast<std::size_t>(i)];
        identity(i, i) = 1;
    }
    const Buffer device_a = memory->allocate(8 * sizeof(float)), device_b = memory->allocate(64 * sizeof(float));
    const Buffer c = memory->allocate(8 * sizeof(float));
    memory->copy_to_device(device_a.data(), a.values.data(), device_a.bytes());
    memory->copy_to_device(device_b.data(), identity.values.data(), device_b.bytes());
    split.multiply(cuda::Transpose::no, 1, device_a.matrix<const float>(1, 8), device_b.matrix<const float>(8, 8), 0,
                   c.matrix<float>(1, 8));
    std::vector<float> found(8);
    memory->copy_to_host(found.data(), c.data(), c.bytes());
    for (std::size_t i = 0; i < found.size(); ++i)
        EXPECT_EQ(found[i], values[i]);
}

}  // namespace
}  // namespace fairgptq::testing
