// The header that other programs include, alone.
#include <gtest/gtest.h>

#include <cmath>
#include <fairgptq/solve.hpp>
#include <stdexcept>

namespace {

TEST(PublicHeader, AnIdentityHessianRoundsToNearest) {
    constexpr std::int64_t rows = 3;
    constexpr std::int64_t cols = 64;
    std::vector<float> weights(rows * cols);
    for (std::size_t i = 0; i < weights.size(); ++i)
        weights[i] = std::sin(static_cast<float>(i));
    std::vector<float> hessian(cols * cols, 0.0F);
    for (std::int64_t i = 0; i < cols; ++i)
        hessian[i * cols + i] = 1;
    fairgptq::QuantizationOptions options;
    options.alpha = 0;
    options.group_size = 64;
    const fairgptq::QuantizedMatrix result = fairgptq::quantize_matrix(weights, rows, cols, hessian, {}, options);
    double error = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const float scale = result.scales[i / cols];
        // The largest weight is 7.5 steps, half a step outside a symmetric grid; the step was rounded to half
        // precision.
        EXPECT_LE(std::fabs(result.values[i] - weights[i]), (0.5F + 8 * 0x1p-11F) * scale);
        error += std::pow(static_cast<double>(weights[i]) - static_cast<double>(result.values[i]), 2);
    }
    EXPECT_NEAR(result.reconstruction, error, 1e-5 * error);
}

TEST(PublicHeader, RefusalsAreSentences) {
    const std::vector<float> weights(4, 1.0F);
    const std::vector<float> hessian{1, 0, 0, 1};
    fairgptq::QuantizationOptions options;
    options.group_size = -1;
    const auto message = [&](const std::vector<float>& h) -> std::string {
        try {
            fairgptq::quantize_matrix(weights, 2, 2, h, {}, options);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_NE(message(hessian).find("alpha"), std::string::npos);  // 0.1, without pairs
    options.alpha = 0;
    EXPECT_EQ(message(hessian), "");
    EXPECT_NE(message({1, 0, 1}).find("H has 3 values"), std::string::npos);
    EXPECT_NE(message({1, 0, 0, -1}).find("negative"), std::string::npos);
    EXPECT_NE(message({1, 0.5F, 0, 1}).find("symmetric"), std::string::npos);
    EXPECT_NE(message({1, 0, 0, NAN}).find("finite"), std::string::npos);
    options.solver = "newton";
    EXPECT_NE(message(hessian).find("reference-first-order"), std::string::npos);
}

}  // namespace
