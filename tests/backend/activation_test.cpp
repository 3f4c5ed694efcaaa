#include "backend/activation.hpp"

#include <algorithm>
#include <limits>

#include "backend/cpu/fast_exp.hpp"
#include "backends.hpp"
#include "reference/activation.hpp"

namespace fairgptq::testing {
namespace {

class ActivationTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(ActivationTest);

const std::vector<Activation> activations{Activation::silu,      Activation::relu,    Activation::gelu,
                                          Activation::gelu_tanh, Activation::sigmoid, Activation::identity};

/// Values over the range where activations bend, then where they are flat.
HostMatrix range(std::int64_t rows, std::int64_t cols) {
    HostMatrix x = random_matrix(rows, cols, 1, 3.0F);
    const std::vector<float> special{0.0F, -0.0F, 1e-30F, -1e-30F, 20.0F, -20.0F, -85.0F, 100.0F, -100.0F, -2000.0F};
    for (std::size_t i = 0; i < std::min(special.size(), x.values.size()); ++i)
        x.values[i] = special[i];
    return x;
}

/// exp turns an argument's rounding into a relative error of its size. The largest argument, tanh-GELU's, is
/// 1.6·(|x| + 0.045·|x|³) after six roundings; beyond 110 the result is flat or below 10⁻³⁵. exp itself is good to 7u,
/// and the sum, quotient and products around it round five times.
double activation_bound(double x, double expected, DType type) {
    const double size = std::fabs(x);
    const double argument = std::min(110.0, 1.6 * (size + 0.045 * size * size * size));
    const double underflow = type == DType::float16 ? 0x1p-25 : 1e-35;  // half of the smallest step
    return ((6 * argument + 12) * float32_roundoff + unit_roundoff(type)) * std::fabs(expected) + underflow;
}

TEST_P(ActivationTest, FollowsTheDefinition) {
    for (const Activation activation : activations)
        for (const std::int64_t cols : {0, 1, 15, 16, 17, 1536}) {
            const HostMatrix x = rounded(range(3, cols));
            const DeviceMatrix inputs = upload(x);
            const DeviceMatrix output = device_matrix(3, cols, type, 2);
            backend->activation(activation, inputs.view, output.view);
            const HostMatrix result = download(output.view);
            for (std::size_t i = 0; i < x.values.size(); ++i) {
                const auto argument = static_cast<double>(x.values[i]);
                const double expected = reference::activation(activation, argument);
                ASSERT_NEAR(result.values[i], expected, activation_bound(argument, expected, type))
                    << "at " << argument;
            }
            backend->activation(activation, inputs.view, inputs.view);
            EXPECT_EQ(download(inputs.view).values, result.values) << "in place";
        }
}

TEST_P(ActivationTest, GatedMultipliesByUp) {
    for (const Activation activation : activations) {
        const HostMatrix gate = rounded(range(5, 100));
        const HostMatrix up = rounded(random_matrix(5, 100, 2));
        const DeviceMatrix device_gate = upload(gate);
        const DeviceMatrix device_up = upload(up);
        const DeviceMatrix output = device_matrix(5, 100, type, 2);
        backend->gated_activation(activation, device_gate.view, device_up.view, output.view);
        const HostMatrix result = download(output.view);
        for (std::size_t i = 0; i < gate.values.size(); ++i) {
            const auto argument = static_cast<double>(gate.values[i]);
            const double expected = reference::activation(activation, argument) * static_cast<double>(up.values[i]);
            ASSERT_NEAR(result.values[i], expected, activation_bound(argument, expected, type)) << "at " << argument;
        }
        const DeviceMatrix other_up = upload(up);
        backend->gated_activation(activation, device_gate.view, other_up.view, other_up.view);
        EXPECT_EQ(download(other_up.view).values, result.values) << "into up";
        backend->gated_activation(activation, device_gate.view, device_up.view, device_gate.view);
        EXPECT_EQ(download(device_gate.view).values, result.values) << "into gate";
    }
}

TEST_P(ActivationTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix a = device_matrix(2, 3, type);
    const DeviceMatrix b = device_matrix(2, 4, type);
    EXPECT_THROW(backend->activation(Activation::silu, a.view, b.view), Failure);
    EXPECT_THROW(backend->gated_activation(Activation::silu, a.view, b.view, a.view), Failure);
    EXPECT_THROW(backend->gated_activation(Activation::silu, a.view, a.view, b.view), Failure);
}

TEST(FastExpTest, IsCloseEverywhere) {
    // The argument's reduction leaves r within u of its size, the polynomial rounds at most twice near 1 and once per
    // smaller term, and scaling by powers of two is exact: below 6u, and the documented bound is 4·10⁻⁷.
    for (double x = -87.0; x < 88.7; x += 0.000731) {
        const auto argument = static_cast<float>(x);
        const double expected = std::exp(static_cast<double>(argument));
        ASSERT_NEAR(fast_exp(argument), expected, 4e-7 * expected) << "at " << argument;
    }
}

TEST(FastExpTest, EndsOfTheRange) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(fast_exp(0.0F), 1.0F);
    EXPECT_EQ(fast_exp(-infinity), 0.0F);
    EXPECT_EQ(fast_exp(-104.0F), 0.0F);
    EXPECT_EQ(fast_exp(-1e30F), 0.0F);
    EXPECT_EQ(fast_exp(infinity), infinity);
    EXPECT_EQ(fast_exp(89.0F), infinity);
    EXPECT_EQ(fast_exp(1e30F), infinity);
    EXPECT_TRUE(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
    // Subnormal results are right to their last place.
    EXPECT_NEAR(fast_exp(-95.0F), std::exp(-95.0), 0x1p-149);
}

}  // namespace
}  // namespace fairgptq::testing
