// Matrices that factorizations are tested on, and what is expected of their factors.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "backends.hpp"
#include "reference/products.hpp"

namespace fairgptq::testing {

inline DeviceMatrix device_copy(Backend& backend, const HostMatrix& matrix) {
    DeviceMatrix result{backend.allocate(matrix.values.size() * sizeof(float)), {}};
    backend.copy_to_device(result.buffer.data(), matrix.values.data(), result.buffer.bytes());
    result.view = result.buffer.tensor(DType::float32, matrix.rows, matrix.cols);
    return result;
}
inline HostMatrix host_copy(Backend& backend, TensorView view) {
    HostMatrix matrix(view.rows, view.cols);
    backend.synchronize();
    backend.copy_to_host(matrix.values.data(), view.data, matrix.values.size() * sizeof(float));
    return matrix;
}

/// XᵀX / tokens + 0.1·I with columns of very different size: what a damped Hessian looks like.
inline HostMatrix positive_definite(std::int64_t n, unsigned seed) {
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

/// A Hessian as layers have them: a few directions that nearly all inputs share, channels whose sizes spread over three
/// orders, and damping that keeps its condition below n / damp.
inline HostMatrix ill_conditioned(std::int64_t n, double damp, unsigned seed) {
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
inline reference::Matrix exact_inverse_factor(const HostMatrix& hessian) {
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

/// U·Uᵀ = A and U·R = I for a matrix of a damped Hessian's kind, to float32's errors.
inline void expect_factor_and_inverse(Backend& backend, std::int64_t n) {
    SCOPED_TRACE(n);
    const HostMatrix original = positive_definite(n, static_cast<unsigned>(n + 1));
    const DeviceMatrix device = device_copy(backend, original);
    ASSERT_TRUE(backend.factor_upper(device.view.float32()));
    const HostMatrix factor = host_copy(backend, device.view);
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

    backend.invert_upper(device.view.float32());
    const reference::Matrix r = reference::copy(host_copy(backend, device.view).view());
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

/// R of an ill-conditioned Hessian beside float64's.
inline void expect_inverse_of_ill_conditioned(Backend& backend, std::int64_t n, double damp) {
    SCOPED_TRACE(damp);
    const HostMatrix hessian = ill_conditioned(n, damp, 7);
    const reference::Matrix exact = exact_inverse_factor(hessian);
    const DeviceMatrix device = device_copy(backend, hessian);
    ASSERT_TRUE(backend.factor_upper(device.view.float32()));
    backend.invert_upper(device.view.float32());
    const HostMatrix found = host_copy(backend, device.view);
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
    ::testing::Test::RecordProperty(fmt::format("damp_{}", damp),
                                    fmt::format("{:.2e} {:.2e}", std::sqrt(difference / norm), worst));
    EXPECT_LE(std::sqrt(difference / norm), bound);
    EXPECT_LE(worst, bound);
}

}  // namespace fairgptq::testing
