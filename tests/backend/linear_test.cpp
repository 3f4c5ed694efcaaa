#include "backend/linear.hpp"

#include <algorithm>

#include "backends.hpp"
#include "reference/linear.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

class LinearTest : public BackendTest {
  protected:
    /// X·Wᵀ + bias (none if empty), added to `before` if `accumulate`
    HostMatrix linear(const HostMatrix& x, const HostMatrix& w, const std::vector<float>& bias,
                      const HostMatrix& before, bool accumulate) const {
        const DeviceMatrix inputs = upload(x);
        const DeviceMatrix weights = upload(w);
        const Buffer device_bias = upload_vector(bias);
        const DeviceMatrix output = upload(before);
        backend->linear(inputs.view, weights.view, bias.empty() ? nullptr : device_bias.as<float>(), output.view,
                        accumulate);
        return download(output.view);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(LinearTest);

struct LinearSize {
    std::int64_t tokens = 0;
    std::int64_t in = 0;
    std::int64_t out = 0;
};

// Around tiles of 256 tokens and 512 output features, and around 2048 and 8192 tokens, where tiles grow.
const std::vector<LinearSize> linear_sizes{{0, 4, 4},     {4, 4, 0},    {3, 0, 5},       {1, 1, 1},
                                           {2, 3, 5},     {255, 7, 9},  {256, 64, 3},    {257, 5, 11},
                                           {5, 17, 511},  {1, 9, 512},  {2, 33, 513},    {300, 12, 600},
                                           {2047, 2, 30}, {2048, 3, 5}, {2100, 2, 1030}, {8193, 2, 4}};

TEST_P(LinearTest, WholeNumbersAreExact) {
    for (const auto& [tokens, in, out] : linear_sizes) {
        const HostMatrix x = integer_matrix(tokens, in, 1);
        const HostMatrix w = integer_matrix(out, in, 2);
        const std::vector<float> bias = integer_matrix(1, out, 3).values;
        const HostMatrix before = integer_matrix(tokens, out, 4);
        for (const bool with_bias : {false, true}) {
            const reference::Matrix product = reference::linear(x.view(), w.view(), with_bias ? bias.data() : nullptr);
            for (const bool accumulate : {false, true}) {
                reference::Matrix expected = product;
                for (std::size_t i = 0; accumulate && i < expected.values.size(); ++i)
                    expected.values[i] += static_cast<double>(before.values[i]);
                SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << in << " to " << out << " features, bias "
                                                  << with_bias << ", accumulate " << accumulate);
                // Whole numbers below 1/u are exact in the output, too; those beyond are rounded once.
                const auto bound = [&](std::int64_t row, std::int64_t col) {
                    return type == DType::float32 ? 0.0 : unit_roundoff(type) * std::fabs(expected(row, col));
                };
                expect_near(linear(x, w, with_bias ? bias : std::vector<float>{}, before, accumulate), expected, bound);
            }
        }
    }
}

TEST_P(LinearTest, RoundingStaysWithinTheBoundOfASum) {
    constexpr std::int64_t in = 900;
    const HostMatrix x = rounded(random_matrix(20, in, 1));
    const HostMatrix w = rounded(random_matrix(530, in, 2));
    const std::vector<float> bias = random_matrix(1, w.rows, 3).values;
    const reference::Matrix expected = reference::linear(x.view(), w.view(), bias.data());
    // A float32 sum of n terms is off by at most n·u·Σ|terms|; the result is then rounded to the output's type.
    const reference::Matrix size = reference::linear(magnitudes(x).view(), magnitudes(w).view(), nullptr);
    expect_near(
        linear(x, w, bias, HostMatrix(x.rows, w.rows), false), expected, [&](std::int64_t row, std::int64_t col) {
            const double terms = size(row, col) + std::fabs(static_cast<double>(bias[static_cast<std::size_t>(col)]));
            return (in + 1) * float32_roundoff * terms + unit_roundoff(type) * std::fabs(expected(row, col));
        });
}

// Sums that sixteen bits do not hold: 2 · 2⁹ · 5 + 1.
TEST_P(LinearTest, ASumOfAnyTypeCanBeFloat32) {
    for (const std::int64_t tokens : {1, 300}) {
        HostMatrix x(tokens, 1025);
        std::ranges::fill(x.values, 1.0F);
        HostMatrix w(3, 1025);
        for (std::int64_t col = 0; col < w.cols; ++col)
            w(1, col) = col == 0 ? 1.0F : 5.0F;
        const DeviceMatrix inputs = upload(x), weights = upload(w);
        const DeviceMatrix output = device_matrix(tokens, 3, DType::float32);
        backend->linear(inputs.view, weights.view, nullptr, output.view, false);
        const HostMatrix found = download(output.view);
        for (std::int64_t token = 0; token < tokens; ++token) {
            EXPECT_EQ(found(token, 0), 0);
            EXPECT_EQ(found(token, 1), 5121);
        }
        if (type == DType::float32) continue;
        const Buffer bias = upload_vector(std::vector<float>{1, 2, 3});
        EXPECT_THROW(backend->linear(inputs.view, weights.view, bias.as<float>(), output.view, false), Failure);
    }
}

TEST_P(LinearTest, ThreadsChangeNothing) {
    const HostMatrix x = rounded(random_matrix(700, 100, 1));
    const HostMatrix w = rounded(random_matrix(1100, 100, 2));
    const HostMatrix before = rounded(random_matrix(x.rows, w.rows, 4));
    EXPECT_TRUE(same_for_any_threads(
        [&] { return linear(x, w, std::vector<float>(static_cast<std::size_t>(w.rows), 0.3F), before, true).values; }));
}

TEST_P(LinearTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix inputs = device_matrix(4, 5, type);
    const DeviceMatrix weights = device_matrix(3, 5, type);
    const DeviceMatrix output = device_matrix(4, 3, type);
    EXPECT_THROW(backend->linear(inputs.view.cols_from(0, 4), weights.view, nullptr, output.view, false), Failure);
    EXPECT_THROW(backend->linear(inputs.view, weights.view.rows_from(0, 2), nullptr, output.view, false), Failure);
    EXPECT_THROW(backend->linear(inputs.view, weights.view, nullptr, output.view.rows_from(0, 3), false), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
