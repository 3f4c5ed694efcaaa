#include "backend/cholesky.hpp"

#include <limits>

#include "backends.hpp"
#include "reference/products.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

class CholeskyTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS(CholeskyTest);

/// XᵀX / tokens + 0.1·I with columns of very different size: what a damped Hessian looks like.
HostMatrix positive_definite(std::int64_t n, unsigned seed) {
    const std::int64_t tokens = 2 * n;
    const HostMatrix inputs = random_matrix(tokens, n, seed);
    HostMatrix result(n, n);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j <= i; ++j) {
            double sum = i == j ? 0.1 * static_cast<double>(tokens) : 0;
            for (std::int64_t t = 0; t < tokens; ++t)
                sum += static_cast<double>(inputs(t, i)) * static_cast<double>(inputs(t, j));
            const double scale = std::exp2(static_cast<double>(i % 7) + static_cast<double>(j % 7));
            result(i, j) = result(j, i) = static_cast<float>(scale * sum / static_cast<double>(tokens));
        }
    return result;
}

// 0, 1, and around the tiles of 64, 128 and 256 and their halves.
constexpr std::int64_t sizes[] = {0, 1, 2, 63, 64, 65, 127, 128, 129, 200, 257, 320, 577};

TEST_P(CholeskyTest, FactorsAndInverts) {
    for (const std::int64_t n : sizes) {
        SCOPED_TRACE(n);
        const HostMatrix original = positive_definite(n, static_cast<unsigned>(n + 1));
        const DeviceMatrix device = upload_float32(original);
        ASSERT_TRUE(backend->factor_upper(device.view.float32()));
        const HostMatrix factor = download(device.view);
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < i; ++j)
                ASSERT_EQ(factor(i, j), 0.0F);
        const reference::Matrix u = reference::copy(factor.view());
        const reference::Matrix product = reference::product(u, reference::transposed(u));
        // |UUᵀ − A| ≤ c·n·u·|U||Uᵀ|, and (|U||Uᵀ|)_ij ≤ √(A_ii A_jj) by Cauchy-Schwarz; the products with inverted
        // tiles add the condition of a 64-column tile, which is below 10² in these matrices.
        const double roundings = static_cast<double>(n) + 64 * 10;
        expect_near(factor.rows == 0 ? factor : original, product, [&](std::int64_t i, std::int64_t j) {
            return roundings * float32_roundoff * std::sqrt(original(i, i) * original(j, j));
        });

        backend->invert_upper(device.view.float32());
        const reference::Matrix r = reference::copy(download(device.view).view());
        const reference::Matrix identity = reference::product(u, r);
        const reference::Matrix bound = reference::product(reference::magnitudes(u), reference::magnitudes(r));
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j) {
                if (i > j) {
                    ASSERT_EQ(r(i, j), 0);
                }
                // A product of several triangular factors, each as long as n at most: |UR − I| ≤ c·n·u·|U||R||U||R|,
                // and here |U||R| is below 10.
                ASSERT_NEAR(
                    identity(i, j), i == j ? 1 : 0,
                    10 * (static_cast<double>(n) + 4) * float32_roundoff * (bound(i, j) + bound(i, i) + bound(j, j)))
                    << i << ", " << j;
            }
    }
}

TEST_P(CholeskyTest, RefusesWhatIsNotPositiveDefinite) {
    const auto factors = [&](const HostMatrix& matrix) {
        const DeviceMatrix device = upload_float32(matrix);
        return backend->factor_upper(device.view.float32());
    };
    EXPECT_FALSE(factors(HostMatrix(1, 1, -1)));
    EXPECT_FALSE(factors(HostMatrix(1, 1, 0)));
    for (const std::int64_t n : {2, 64, 65, 300}) {
        SCOPED_TRACE(n);
        EXPECT_FALSE(factors(HostMatrix(n, n, 1)));  // of rank 1: exactly 0 after one step
        HostMatrix matrix = positive_definite(n, 3);
        for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
            HostMatrix broken = matrix;
            broken(at, at) = -broken(at, at);
            EXPECT_FALSE(factors(broken));
            broken(at, at) = std::numeric_limits<float>::quiet_NaN();
            EXPECT_FALSE(factors(broken));
            broken(at, at) = std::numeric_limits<float>::infinity();
            EXPECT_FALSE(factors(broken));
        }
        EXPECT_TRUE(factors(matrix));
    }
}

TEST_P(CholeskyTest, APivotWithoutDigitsLeftIsNone) {
    // Two columns that differ by less than float32 can tell.
    HostMatrix matrix(2, 2, 3);
    matrix(0, 0) = 3 * (1 + std::numeric_limits<float>::epsilon() / 2);
    const DeviceMatrix device = upload_float32(matrix);
    EXPECT_FALSE(backend->factor_upper(device.view.float32()));
}

TEST_P(CholeskyTest, ThreadsChangeNothing) {
    for (const std::int64_t n : {200, 577}) {
        const HostMatrix original = positive_definite(n, 5);
        EXPECT_TRUE(same_for_any_threads([&] {
            const DeviceMatrix device = upload_float32(original);
            EXPECT_TRUE(backend->factor_upper(device.view.float32()));
            backend->invert_upper(device.view.float32());
            return download(device.view).values;
        }));
    }
}

TEST_P(CholeskyTest, OnlySquareMatrices) {
    const DeviceMatrix device = device_matrix(2, 3, DType::float32);
    EXPECT_THROW(backend->factor_upper(device.view.float32()), Failure);
    EXPECT_THROW(backend->invert_upper(device.view.float32()), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
