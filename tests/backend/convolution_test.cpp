#include "backend/convolution.hpp"

#include "backends.hpp"
#include "reference/activation.hpp"
#include "reference/reference.hpp"

namespace fairgptq::testing {
namespace {

class ConvolutionTest : public BackendTest {
  protected:
    HostMatrix convolve(const HostMatrix& x, const HostMatrix& weights, const std::vector<std::int32_t>& previous,
                        bool silu, std::int64_t gap) const {
        const DeviceMatrix inputs = upload(x, type, gap), output = device_matrix(x.rows, x.cols, type, gap);
        const Buffer taps = upload_vector(weights.values);
        backend->convolve(inputs.view, taps.as<float>(), weights.cols, previous, silu, output.view);
        EXPECT_EQ(download(inputs.view).values, x.values) << "inputs are only read";
        return download(output.view);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(ConvolutionTest);

/// Sequences end to end; the last one begins behind the first one's second row, which two of them share.
std::vector<std::int32_t> chain(std::int64_t rows) {
    std::vector<std::int32_t> previous;
    for (std::int64_t row = 0; row < rows; ++row)
        previous.push_back(row % 11 == 0 ? -1 : row == rows - 1 && rows > 3 ? 1 : static_cast<std::int32_t>(row - 1));
    return previous;
}

TEST_P(ConvolutionTest, FollowsTheDefinition) {
    for (const std::int64_t rows : {0, 1, 2, 5, 40})
        for (const std::int64_t cols : {0, 1, 7, 8, 9, 127, 128, 264, 1032})
            for (const std::int64_t width : {1, 2, 3, 4, 7}) {
                const bool silu = width != 3 && cols != 8;
                const HostMatrix x = rounded(random_matrix(rows, cols, 1));
                const HostMatrix weights = random_matrix(cols, width, 2);
                const std::vector<std::int32_t> previous = chain(rows);
                reference::Matrix expected(rows, cols), bound(rows, cols);
                for (std::int64_t row = 0; row < rows; ++row)
                    for (std::int64_t col = 0; col < cols; ++col) {
                        double sum = 0, sizes = 0;
                        std::int64_t at = row;
                        for (std::int64_t step = 0; step < width && at >= 0; ++step) {
                            const double product =
                                static_cast<double>(weights(col, width - 1 - step)) * static_cast<double>(x(at, col));
                            sum += product;
                            sizes += std::fabs(product);
                            at = previous[static_cast<std::size_t>(at)];
                        }
                        expected(row, col) = silu ? reference::activation(Activation::silu, sum) : sum;
                        // SiLU is at most 1.1 times as steep as its argument; itself it rounds a dozen times.
                        bound(row, col) =
                            (1.1 * static_cast<double>(width) * sizes + 12 + std::fabs(sum)) * float32_roundoff +
                            unit_roundoff(type) * std::fabs(expected(row, col)) + 1e-7;
                    }
                for (const std::int64_t gap : {8, 3})
                    expect_near(convolve(x, weights, previous, silu, gap), expected,
                                [&](std::int64_t row, std::int64_t col) { return bound(row, col); });
            }
}

TEST_P(ConvolutionTest, WhatDoesNotGoTogetherIsRefused) {
    const HostMatrix x = random_matrix(3, 4, 1);
    const DeviceMatrix inputs = upload(x), output = device_matrix(3, 4, type), narrow = device_matrix(3, 3, type);
    const Buffer taps = upload_vector(random_matrix(4, 4, 2).values);
    const std::vector<std::int32_t> good{-1, 0, 1}, few{-1, 0}, late{-1, 1, 0}, below{-2, 0, 1}, beyond{-1, 0, 3};
    const auto convolve = [&](const std::vector<std::int32_t>& previous, std::int64_t width, const DeviceMatrix& to) {
        backend->convolve(inputs.view, taps.as<float>(), width, previous, true, to.view);
    };
    EXPECT_NO_THROW(convolve(good, 4, output));
    EXPECT_THROW(convolve(good, 0, output), Failure);
    EXPECT_THROW(convolve(good, 4, narrow), Failure);
    for (const auto& wrong : {few, late, below, beyond})
        EXPECT_THROW(convolve(wrong, 4, output), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
