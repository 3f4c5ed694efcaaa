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

/// A Hessian as layers have them: a few directions that nearly all inputs share, channels whose sizes spread over three
/// orders, and damping that keeps its condition below n / damp.
HostMatrix ill_conditioned(std::int64_t n, double damp, unsigned seed) {
    const std::int64_t tokens = n / 2;  // fewer than columns: without damping it has no inverse
    const std::int64_t directions = 4;
    const HostMatrix mixing = random_matrix(directions, n, seed);
    const HostMatrix parts = random_matrix(tokens, directions, seed + 1, 5);
    const HostMatrix noise = random_matrix(tokens, n, seed + 2, 0.2F);
    HostMatrix inputs(tokens, n);
    for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t i = 0; i < n; ++i) {
            float sum = noise(t, i);
            for (std::int64_t d = 0; d < directions; ++d)
                sum += parts(t, d) * mixing(d, i);
            inputs(t, i) = sum * std::exp2(static_cast<float>(i % 11) - 5);
        }
    HostMatrix hessian(n, n);
    double mean = 0;
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j <= i; ++j) {
            double sum = 0;
            for (std::int64_t t = 0; t < tokens; ++t)
                sum += static_cast<double>(inputs(t, i)) * static_cast<double>(inputs(t, j));
            hessian(i, j) = hessian(j, i) = static_cast<float>(sum);
            if (i == j) mean += sum / static_cast<double>(n);
        }
    for (std::int64_t i = 0; i < n; ++i)
        hessian(i, i) = static_cast<float>(static_cast<double>(hessian(i, i)) + damp * mean);
    return hessian;
}

/// R = U⁻¹ in float64 from the float32 Hessian.
reference::Matrix exact_inverse_factor(const HostMatrix& hessian) {
    const std::int64_t n = hessian.rows;
    reference::Matrix u = reference::copy(hessian.view());
    for (std::int64_t k = n - 1; k >= 0; --k) {
        u(k, k) = std::sqrt(u(k, k));
        for (std::int64_t i = 0; i < k; ++i)
            u(i, k) /= u(k, k);
        for (std::int64_t i = 0; i < k; ++i)
            for (std::int64_t j = i; j < k; ++j)
                u(i, j) -= u(i, k) * u(j, k);
    }
    reference::Matrix r(n, n);
    for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t i = j; i >= 0; --i) {
            double sum = i == j ? 1 : 0;
            for (std::int64_t k = i + 1; k <= j; ++k)
                sum -= u(i, k) * r(k, j);
            r(i, j) = sum / u(i, i);
        }
    return r;
}

// Float32 is enough for the Hessians that damping leaves; where it is not, a pivot is lost and the solver raises
// damping (RefusesWhatIsNotPositiveDefinite).
TEST_P(CholeskyTest, IllConditionedHessiansAgainstFloat64) {
    const std::int64_t n = 320;
    for (const double damp : {0.01, 1e-3, 1e-4}) {
        SCOPED_TRACE(damp);
        const HostMatrix hessian = ill_conditioned(n, damp, 7);
        const reference::Matrix exact = exact_inverse_factor(hessian);
        const DeviceMatrix device = upload_float32(hessian);
        ASSERT_TRUE(backend->factor_upper(device.view.float32()));
        backend->invert_upper(device.view.float32());
        const HostMatrix found = download(device.view);
        double difference = 0;
        double norm = 0;
        double worst = 0;  // of the columns' scales, which is what the loop divides by
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = i; j < n; ++j) {
                const double error = static_cast<double>(found(i, j)) - exact(i, j);
                difference += error * error;
                norm += exact(i, j) * exact(i, j);
                if (i == j) worst = std::max(worst, std::fabs(error) / exact(i, i));
            }
        // The factor's relative error grows with the condition, n / damp at most, times float32's roundoff.
        const double bound = static_cast<double>(n) / damp * float32_roundoff;
        RecordProperty(fmt::format("damp_{}", damp), fmt::format("{:.2e} {:.2e}", std::sqrt(difference / norm), worst));
        EXPECT_LE(std::sqrt(difference / norm), bound);
        EXPECT_LE(worst, bound);
    }
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
