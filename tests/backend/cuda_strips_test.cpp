// How the GPU cuts inversions and products with triangles, with strips so small that every branch is taken.
#include <gtest/gtest.h>

#include "backend/cpu/backend.hpp"
#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/matrix_kernels.hpp"
#include "backend/cuda/strips.hpp"
#include "backends.hpp"
#include "cuda_products.hpp"
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

/// A matrix on the GPU: `filled` from the host, and back when it is asked for.
class OnDevice {
  public:
    OnDevice(cuda::Memory& memory, const HostMatrix& matrix)
        : memory_(memory), rows_(matrix.rows), cols_(matrix.cols), buffer_(memory.allocate(bytes_of(matrix))) {
        memory.copy_to_device(buffer_.data(), matrix.values.data(), bytes_of(matrix));
    }
    MatrixView<float> view() const { return buffer_.matrix<float>(rows_, cols_); }
    HostMatrix back() const {
        HostMatrix matrix(rows_, cols_);
        memory_.copy_to_host(matrix.values.data(), buffer_.data(), bytes_of(matrix));
        return matrix;
    }

  private:
    static std::size_t bytes_of(const HostMatrix& matrix) { return matrix.values.size() * sizeof(float); }
    cuda::Memory& memory_;
    std::int64_t rows_, cols_;
    Buffer buffer_;
};

class CudaStrips : public WithCudaProducts {};

TEST_F(CudaStrips, ReversingTwiceChangesNothing) {
    for (const std::int64_t n : {0, 1, 2, 3, 64, 65}) {
        const HostMatrix original = random_matrix(n, n, 1);
        const OnDevice matrix(*memory, original);
        cuda::check(cuda::launch_reverse(cuda::plain(matrix.view()), false, memory->stream()), "reverse");
        const HostMatrix once = matrix.back();
        cuda::check(cuda::launch_reverse(cuda::plain(matrix.view()), true, memory->stream()), "reverse");
        const HostMatrix twice = matrix.back();
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j) {
                ASSERT_EQ(once(i, j), original(n - 1 - i, n - 1 - j));
                ASSERT_EQ(twice(i, j), j < i ? 0 : original(i, j));
            }
    }
}

TEST_F(CudaStrips, InvertsTriangles) {
    cuda::Products split(*memory, {16, 48, 40});  // by products on tensor cores, in small pieces
    for (const std::int64_t n : {0, 1, 63, 64, 65, 127, 128, 129, 200, 256, 320, 449, 577})
        for (const cuda::StripSizes& sizes : all_sizes) {
            if (sizes.strip == 1 && n > 129) continue;
            SCOPED_TRACE(fmt::format("n {}, strips of {}, batches up to {}", n, sizes.strip, sizes.largest_batched));
            const HostMatrix upper = upper_triangle(n, 2);
            const OnDevice matrix(*memory, upper), other(*memory, upper);
            cuda::Scratch scratch(*memory);
            for (const auto& [to, by] : {std::pair(&matrix, products.get()), std::pair(&other, &split)}) {
                cuda::check(cuda::launch_invert_leaves(cuda::plain(to->view()), memory->stream()), "invert_leaves");
                Peers alone;
                cuda::invert_pairs(*by, scratch, to->view(), alone, sizes);
            }
            HostMatrix expected = upper;
            CpuBackend().invert_upper(view(expected));
            // Both within n·u·|R||U||R| of the inverse (Higham, Accuracy and Stability, 14.2).
            const reference::Matrix size = reference::magnitudes(reference::copy(expected.view()));
            const reference::Matrix bound = reference::product(
                reference::product(size, reference::magnitudes(reference::copy(upper.view()))), size);
            for (const OnDevice* inverse : {&matrix, &other})
                expect_near(inverse->back(), expected, [&](std::int64_t i, std::int64_t j) {
                    return i > j ? 0 : 2 * (static_cast<double>(n) + 4) * float32_roundoff * bound(i, j);
                });
            if (HasFatalFailure()) return;
        }
}

TEST_F(CudaStrips, ProductsWithTrianglesAndSymmetricMatrices) {
    for (const std::int64_t rows : {1, 5})
        for (const std::int64_t n : {1, 47, 48, 49, 64, 65, 130})
            for (const cuda::StripSizes& sizes : all_sizes) {
                SCOPED_TRACE(fmt::format("{} x {}, strips of {}", rows, n, sizes.strip));
                const HostMatrix x = integer_matrix(rows, n, 1);
                const HostMatrix upper = whole_upper_triangle(n, 2);
                const OnDevice device_x(*memory, x), device_upper(*memory, upper);
                const reference::Matrix exact_x = reference::copy(x.view());
                const reference::Matrix exact_upper = reference::copy(upper.view());
                const auto exact = [](std::int64_t, std::int64_t) { return 0.0; };

                const OnDevice out(*memory, HostMatrix(rows, n, std::nanf("")));
                cuda::multiply_upper_transposed(*products, device_x.view(), device_upper.view(), out.view(), sizes);
                expect_near(out.back(), reference::product(exact_x, reference::transposed(exact_upper)), exact);

                const OnDevice sum(*memory, HostMatrix(rows, n, 3));
                cuda::add_multiply_upper(*products, device_x.view(), device_upper.view(), sum.view(), sizes);
                reference::Matrix expected = reference::product(exact_x, exact_upper);
                for (double& value : expected.values)
                    value += 3;
                expect_near(sum.back(), expected, exact);

                HostMatrix symmetric = integer_matrix(n, n, 3);
                for (std::int64_t i = 0; i < n; ++i)
                    for (std::int64_t j = 0; j < i; ++j)
                        symmetric(i, j) = symmetric(j, i);
                const OnDevice device_symmetric(*memory, symmetric);
                const OnDevice half(*memory, HostMatrix(rows, n, std::nanf("")));
                cuda::half_symmetric_product(*products, device_x.view(), device_symmetric.view(), half.view(), sizes);
                const HostMatrix found = half.back();
                for (std::int64_t r = 0; r < rows; ++r) {
                    double form = 0;
                    for (std::int64_t i = 0; i < n; ++i)
                        form += static_cast<double>(found(r, i)) * static_cast<double>(x(r, i));
                    ASSERT_EQ(form, reference::quadratic_form(exact_x, reference::copy(symmetric.view()), r, 1));
                }
                if (HasFatalFailure()) return;
            }
}

TEST_F(CudaStrips, TheLowerTriangleOfAGram) {
    for (const std::int64_t features : {1, 47, 48, 49, 130})
        for (const cuda::StripSizes& sizes : all_sizes) {
            const HostMatrix x = integer_matrix(11, features, 1);
            const OnDevice device_x(*memory, x), out(*memory, HostMatrix(features, features, std::nanf("")));
            cuda::lower_gram(*products, TensorView(device_x.view()), out.view(), sizes);
            const HostMatrix found = out.back();
            const reference::Matrix expected = reference::gram(x.view());
            for (std::int64_t i = 0; i < features; ++i)
                for (std::int64_t j = 0; j <= i; ++j)
                    ASSERT_EQ(found(i, j), expected(i, j));
        }
}

}  // namespace
}  // namespace fairgptq::testing
