#include "backend/scale.hpp"

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class ScaleTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(ScaleTest);

constexpr float factor = 0.22F;  // no power of two

/// A product and a sum in float32, and one rounding to the type.
double bound(double product, double before, DType type) {
    return 2 * float32_roundoff * (std::fabs(product) + std::fabs(before)) +
           unit_roundoff(type) * std::fabs(product + before) + 1e-7;  // float16's smallest steps
}

TEST_P(ScaleTest, FollowsTheDefinition) {
    for (const std::int64_t rows : {0, 1, 5})
        for (const std::int64_t cols : {0, 1, 7, 8, 9, 576}) {
            const HostMatrix x = rounded(random_matrix(rows, cols, 1));
            const HostMatrix y = rounded(random_matrix(rows, cols, 2));
            const DeviceMatrix inputs = upload(x);
            const DeviceMatrix scaled = device_matrix(rows, cols, type, 3);
            const DeviceMatrix sum = upload(y);
            backend->scale(inputs.view, factor, scaled.view, false);
            backend->scale(inputs.view, factor, sum.view, true);
            const HostMatrix product = download(scaled.view);
            const HostMatrix added = download(sum.view);
            for (std::size_t i = 0; i < x.values.size(); ++i) {
                const double expected = static_cast<double>(factor) * static_cast<double>(x.values[i]);
                const auto before = static_cast<double>(y.values[i]);
                ASSERT_NEAR(product.values[i], expected, bound(expected, 0, type));
                ASSERT_NEAR(added.values[i], before + expected, bound(expected, before, type));
            }
            backend->scale(inputs.view, factor, inputs.view, false);
            EXPECT_EQ(download(inputs.view).values, product.values) << "in place";
        }
}

TEST_P(ScaleTest, ByOneIsACopy) {
    const HostMatrix x = rounded(random_matrix(3, 33, 3));
    const DeviceMatrix inputs = upload(x);
    const DeviceMatrix output = device_matrix(3, 33, type, 5);
    backend->scale(inputs.view, 1, output.view, false);
    EXPECT_EQ(download(output.view).values, x.values);
}

TEST_P(ScaleTest, SizesThatDisagreeAreRefused) {
    const DeviceMatrix a = device_matrix(2, 3, type);
    const DeviceMatrix b = device_matrix(2, 4, type);
    const DeviceMatrix c = device_matrix(3, 3, type);
    EXPECT_THROW(backend->scale(a.view, 1, b.view, false), Failure);
    EXPECT_THROW(backend->scale(a.view, 1, c.view, true), Failure);
}

}  // namespace
}  // namespace fairgptq::testing
