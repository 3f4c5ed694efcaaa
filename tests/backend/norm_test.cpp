#include "backend/norm.hpp"

#include <algorithm>

#include "backends.hpp"
#include "reference/norm.hpp"

namespace fairgptq::testing {
namespace {

class NormTest : public BackendTest {
  protected:
    /// A float32 mean of n squares is off by a share of (n + 2)·u, its root by half of that; taking out the mean, the
    /// division, weight and bias round some five times more, each by u of what is there then.
    double share(std::int64_t features) const {
        return static_cast<double>(features + 12) * float32_roundoff + unit_roundoff(type);
    }
};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(NormTest);

TEST_P(NormTest, RmsNorm) {
    for (const std::int64_t rows : {0, 1, 5})
        for (const std::int64_t features : {1, 15, 16, 17, 576, 1100, 2500}) {
            const HostMatrix x = rounded(random_matrix(rows, features, 1, 3.0F));
            const HostMatrix weight = random_matrix(1, features, 2);
            const DeviceMatrix inputs = upload(x);
            const DeviceMatrix output = device_matrix(rows, features, type, 1);
            const Buffer device_weight = upload_vector(weight.values);
            backend->rms_norm(inputs.view, device_weight.as<float>(), 0.1F, output.view);
            const reference::Matrix expected =
                reference::rms_norm(x.view(), weight.values.data(), static_cast<double>(0.1F));
            const double underflow = type == DType::float16 ? 0x1p-25 : 0;  // half of the smallest step
            const auto bound = [&](std::int64_t row, std::int64_t col) {
                return share(features) * std::fabs(expected(row, col)) + underflow;
            };
            expect_near(download(output.view), expected, bound);
            backend->rms_norm(inputs.view, device_weight.as<float>(), 0.1F, inputs.view);
            EXPECT_EQ(download(inputs.view).values, download(output.view).values) << "in place";
        }
}

TEST_P(NormTest, LayerNorm) {
    for (const std::int64_t rows : {0, 1, 5})
        for (const std::int64_t features : {1, 15, 16, 17, 576, 1100, 2500}) {
            HostMatrix x = random_matrix(rows, features, 1, 3.0F);
            for (float& value : x.values)
                value += 2.0F;
            x = rounded(x);
            const HostMatrix weight = random_matrix(1, features, 2);
            const HostMatrix bias = random_matrix(1, features, 3);
            const DeviceMatrix inputs = upload(x);
            const DeviceMatrix output = device_matrix(rows, features, type, 1);
            const Buffer device_weight = upload_vector(weight.values);
            const Buffer device_bias = upload_vector(bias.values);
            backend->layer_norm(inputs.view, device_weight.as<float>(), device_bias.as<float>(), 0.1F, output.view);
            const reference::Matrix expected =
                reference::layer_norm(x.view(), weight.values.data(), bias.values.data(), static_cast<double>(0.1F));
            const auto bound = [&](std::int64_t row, std::int64_t col) {
                // The mean's error, features·u·max|x|, is shared by all elements of a row; epsilon keeps the divisor
                // above sqrt(0.1) > 0.3.
                double largest = 0;
                for (std::int64_t i = 0; i < features; ++i)
                    largest = std::max(largest, std::fabs(static_cast<double>(x(row, i))));
                const double mean_error = static_cast<double>(features + 1) * float32_roundoff * largest / 0.3;
                const auto column = static_cast<std::size_t>(col);
                const double weight_size = std::fabs(static_cast<double>(weight.values[column]));
                const double bias_size = std::fabs(static_cast<double>(bias.values[column]));
                return mean_error * weight_size + share(features) * (std::fabs(expected(row, col)) + 2 * bias_size);
            };
            expect_near(download(output.view), expected, bound);
            backend->layer_norm(inputs.view, device_weight.as<float>(), device_bias.as<float>(), 0.1F, inputs.view);
            EXPECT_EQ(download(inputs.view).values, download(output.view).values) << "in place";
        }
}

TEST_P(NormTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix inputs = device_matrix(2, 3, type);
    const Buffer weight = upload_vector(std::vector<float>(3));
    EXPECT_THROW(backend->rms_norm(inputs.view, weight.as<float>(), 0, inputs.view.cols_from(0, 2)), Failure);
    EXPECT_THROW(
        backend->layer_norm(inputs.view, weight.as<float>(), weight.as<float>(), 0, inputs.view.rows_from(0, 1)),
        Failure);
}

}  // namespace
}  // namespace fairgptq::testing
