// How the GPU cuts factorizations and products with triangles, run on the host (host_kernels.hpp) with strips so small
// that every branch is taken, against plain loops.
#include <gtest/gtest.h>

#include "backend/cpu/backend.hpp"
#include "backends.hpp"
#include "host_kernels.hpp"
#include "reference/gram.hpp"
#include "reference/products.hpp"

namespace fairgptq::testing {
namespace {

const std::vector<cuda::StripSizes> all_sizes{{2048, 64, 512}, {48, 64, 64}, {64, 64, 128}, {1, 64, 32}};

HostMatrix upper_triangle(std::int64_t n, unsigned seed) {
    HostMatrix matrix = random_matrix(n, n, seed, 0.1F);
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < i; ++j)
            matrix(i, j) = 0;
        matrix(i, i) = 1.0F + static_cast<float>(i % 3);
    }
    return matrix;
}

/// Whole numbers: sums are exact in any order.
HostMatrix whole_upper_triangle(std::int64_t n, unsigned seed) {
    HostMatrix matrix = integer_matrix(n, n, seed);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j)
            matrix(i, j) = 0;
    return matrix;
}

MatrixView<float> view(HostMatrix& matrix) {
    return {matrix.values.data(), matrix.rows, matrix.cols};
}

void reverse(HostMatrix& matrix, bool clear_lower) {
    for (std::int64_t k = 0; k < cuda::reversed_pairs(matrix.rows); ++k)
        cuda::reverse_pair(plain(view(matrix)), k, clear_lower);
}

TEST(CudaStripsOnHost, ReversingTwiceChangesNothing) {
    for (const std::int64_t n : {0, 1, 2, 3, 64, 65}) {
        const HostMatrix original = random_matrix(n, n, 1);
        HostMatrix matrix = original;
        reverse(matrix, false);
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j)
                ASSERT_EQ(matrix(i, j), original(n - 1 - i, n - 1 - j));
        reverse(matrix, true);
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j)
                ASSERT_EQ(matrix(i, j), j < i ? 0 : original(i, j));
    }
}

/// LAPACK's potrf with its arguments as cuSOLVER's takes them: column-major, upper triangle: A = VᵀV.
void factor_column_major_upper(HostMatrix& matrix) {
    const std::int64_t n = matrix.rows;
    const auto v = [&](std::int64_t i, std::int64_t j) -> float& { return matrix(j, i); };
    for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t i = 0; i <= j; ++i) {
            double sum = v(i, j);
            for (std::int64_t k = 0; k < i; ++k)
                sum -= static_cast<double>(v(k, i)) * static_cast<double>(v(k, j));
            v(i, j) = static_cast<float>(i == j ? std::sqrt(sum) : sum / static_cast<double>(v(i, i)));
        }
}

TEST(CudaStripsOnHost, AReversedCholeskyFactorIsTheUpperOne) {
    for (const std::int64_t n : {1, 2, 3, 64, 65, 130}) {
        HostMatrix matrix = random_matrix(n, n, 1);
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j <= i; ++j)
                matrix(j, i) = matrix(i, j) = i == j ? 3 * static_cast<float>(n) : matrix(i, j);
        HostMatrix expected = matrix;
        ASSERT_TRUE(CpuBackend().factor_upper(view(expected)));
        reverse(matrix, false);
        factor_column_major_upper(matrix);
        reverse(matrix, true);
        expect_near(matrix, expected, [&](std::int64_t i, std::int64_t j) {
            return static_cast<double>(i > j ? 0 : n + 8) * float32_roundoff * std::sqrt(3.0 * static_cast<double>(n));
        });
    }
}

TEST(CudaStripsOnHost, InvertsTriangles) {
    for (const std::int64_t n : {0, 1, 63, 64, 65, 127, 128, 129, 200, 256, 320, 449, 577})
        for (const cuda::StripSizes& sizes : all_sizes) {
            SCOPED_TRACE(fmt::format("{}, strips of {}, batches up to {}", n, sizes.strip, sizes.largest_batched));
            const HostMatrix upper = upper_triangle(n, 2);
            HostMatrix inverse = upper;
            for (std::int64_t begin = 0; begin < n; begin += cuda::inverted_leaf) {
                const auto memory = poisoned<cuda::LeafMemory>();
                for (int col = cuda::inverted_leaf - 1; col >= 0; --col)
                    cuda::load_leaf_column(plain(view(inverse)), begin, col, *memory);
                for (int col = cuda::inverted_leaf - 1; col >= 0; --col)
                    cuda::invert_leaf_column(plain(view(inverse)), begin, col, *memory);
            }
            HostProducts products;
            HostScratch scratch;
            cuda::invert_pairs(products, scratch, view(inverse), sizes);
            HostMatrix expected = upper;
            CpuBackend().invert_upper(view(expected));
            // Both within n·u·|R||U||R| of the inverse (Higham, Accuracy and Stability, 14.2).
            const reference::Matrix size = reference::magnitudes(reference::copy(expected.view()));
            const reference::Matrix bound = reference::product(
                reference::product(size, reference::magnitudes(reference::copy(upper.view()))), size);
            expect_near(inverse, expected, [&](std::int64_t i, std::int64_t j) {
                return i > j ? 0 : 2 * (static_cast<double>(n) + 4) * float32_roundoff * bound(i, j);
            });
            if (HasFatalFailure()) return;
        }
}

TEST(CudaStripsOnHost, ProductsWithTrianglesAndSymmetricMatrices) {
    HostProducts products;
    for (const std::int64_t rows : {1, 5})
        for (const std::int64_t n : {1, 47, 48, 49, 64, 65, 130})
            for (const cuda::StripSizes& sizes : all_sizes) {
                SCOPED_TRACE(fmt::format("{} x {}, strips of {}", rows, n, sizes.strip));
                const HostMatrix x = integer_matrix(rows, n, 1);
                const HostMatrix upper = whole_upper_triangle(n, 2);
                const reference::Matrix exact_x = reference::copy(x.view());
                const reference::Matrix exact_upper = reference::copy(upper.view());
                const auto exact = [](std::int64_t, std::int64_t) { return 0.0; };

                HostMatrix out(rows, n, std::nanf(""));
                cuda::multiply_upper_transposed(products, x.view(), upper.view(), view(out), sizes);
                expect_near(out, reference::product(exact_x, reference::transposed(exact_upper)), exact);

                out = HostMatrix(rows, n, 3);
                cuda::add_multiply_upper(products, x.view(), upper.view(), view(out), sizes);
                reference::Matrix expected = reference::product(exact_x, exact_upper);
                for (double& value : expected.values)
                    value += 3;
                expect_near(out, expected, exact);

                HostMatrix symmetric = integer_matrix(n, n, 3);
                for (std::int64_t i = 0; i < n; ++i)
                    for (std::int64_t j = 0; j < i; ++j)
                        symmetric(i, j) = symmetric(j, i);
                out = HostMatrix(rows, n, std::nanf(""));
                cuda::half_symmetric_product(products, x.view(), symmetric.view(), view(out), sizes);
                for (std::int64_t r = 0; r < rows; ++r) {
                    double form = 0;
                    for (std::int64_t i = 0; i < n; ++i)
                        form += static_cast<double>(out(r, i)) * static_cast<double>(x(r, i));
                    ASSERT_EQ(form, reference::quadratic_form(exact_x, reference::copy(symmetric.view()), r, 1));
                }
                if (HasFatalFailure()) return;
            }
}

TEST(CudaStripsOnHost, TheLowerTriangleOfAGram) {
    HostProducts products;
    for (const std::int64_t features : {1, 47, 48, 49, 130})
        for (const cuda::StripSizes& sizes : all_sizes) {
            HostMatrix x = integer_matrix(11, features, 1);
            HostMatrix out(features, features, std::nanf(""));
            cuda::lower_gram(products, TensorView(view(x)), view(out), sizes);
            const reference::Matrix expected = reference::gram(x.view());
            for (std::int64_t i = 0; i < features; ++i)
                for (std::int64_t j = 0; j <= i; ++j)
                    ASSERT_EQ(out(i, j), expected(i, j));
        }
}

}  // namespace
}  // namespace fairgptq::testing
