#include "backend/cholesky.hpp"

#include <limits>

#include "hessians.hpp"
#include "reference/products.hpp"
#include "threads.hpp"

namespace fairgptq::testing {
namespace {

class CholeskyTest : public BackendTest {};
FAIRGPTQ_ON_BACKENDS(CholeskyTest);

// 0, 1, and around the tiles of 64, 128 and 256 and their halves.
constexpr std::int64_t orders[] = {0, 1, 2, 63, 64, 65, 127, 128, 129, 200, 257, 320, 577};

TEST_P(CholeskyTest, FactorsAndInverts) {
    for (const std::int64_t n : orders)
        expect_factor_and_inverse(*backend, n);
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

// Float32 is enough for the Hessians that damping leaves; where it is not, a pivot is lost and the solver raises
// damping (RefusesWhatIsNotPositiveDefinite).
TEST_P(CholeskyTest, IllConditionedHessiansAgainstFloat64) {
    for (const double damp : {0.01, 1e-3, 1e-4})
        expect_inverse_of_ill_conditioned(*backend, 320, damp);
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
