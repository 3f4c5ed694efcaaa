#include "backend/soft_cap.hpp"

#include <limits>

#include "backends.hpp"

namespace fairgptq::testing {
namespace {

class SoftCapTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS_AND_TYPES(SoftCapTest);

TEST_P(SoftCapTest, FollowsTheDefinition) {
    for (const float cap : {0.5F, 30.0F})
        for (const std::int64_t rows : {0, 1, 5})
            for (const std::int64_t cols : {0, 1, 7, 8, 9, 576}) {
                HostMatrix x = rounded(random_matrix(rows, cols, 1, 10.0F));
                if (rows > 1 && cols > 4) {
                    x(1, 0) = 0;
                    x(1, 1) = 60000;
                    x(1, 2) = -60000;
                    x(1, 3) = 0.001F;
                    x = rounded(x);
                }
                const DeviceMatrix values = upload(x, type, 3);
                backend->soft_cap(values.view, cap);
                const HostMatrix capped = download(values.view);
                for (std::size_t i = 0; i < x.values.size(); ++i) {
                    const auto c = static_cast<double>(cap);
                    const double expected = c * std::tanh(static_cast<double>(x.values[i]) / c);
                    ASSERT_NEAR(capped.values[i], expected, 1e-6 * c + unit_roundoff(type) * std::fabs(expected));
                }
            }
}

TEST_P(SoftCapTest, WhatIsNoNumberStays) {
    HostMatrix x(1, 3);
    x(0, 0) = std::numeric_limits<float>::quiet_NaN();
    x(0, 1) = std::numeric_limits<float>::infinity();
    x(0, 2) = -x(0, 1);
    const DeviceMatrix values = upload(x);
    backend->soft_cap(values.view, 30);
    const HostMatrix capped = download(values.view);
    EXPECT_TRUE(std::isnan(capped(0, 0)));
    EXPECT_EQ(capped(0, 1), 30);
    EXPECT_EQ(capped(0, 2), -30);
}

TEST_P(SoftCapTest, NoCapIsRefused) {
    const DeviceMatrix values = device_matrix(2, 3, type);
    for (const float cap : {0.0F, -1.0F, std::numeric_limits<float>::quiet_NaN()})
        EXPECT_THROW(backend->soft_cap(values.view, cap), Failure) << cap;
}

}  // namespace
}  // namespace fairgptq::testing
