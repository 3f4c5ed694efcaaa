// Factorization by panels and inversion by products on tensor cores, cut so small that every branch is taken.
#include <limits>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "hessians.hpp"
#include "support_files/shared_factorization.hpp"

namespace fairgptq::testing {
namespace {

class CudaCholesky : public ::testing::Test {
  protected:
    void SetUp() override {
        if (cuda::device_count() == 0) GTEST_SKIP() << "this machine has no GPU";
    }
    static CudaBackend small(std::int64_t panel) {
        return {0, DType::bfloat16, {.split = {.least = 16, .side = 96, .inner = 40}, .factor_panel = panel}};
    }
};

TEST_F(CudaCholesky, FactorsPanelByPanel) {
    for (const std::int64_t panel : {48, 64, 100}) {
        CudaBackend backend = small(panel);
        for (const std::int64_t n :
             {std::int64_t{1}, panel - 1, panel, panel + 1, 2 * panel, 2 * panel + 4, std::int64_t{320}}) {
            SCOPED_TRACE(fmt::format("panels of {}", panel));
            expect_factor_and_inverse(backend, n);
        }
    }
}

TEST_F(CudaCholesky, IllConditionedHessiansAgainstFloat64) {
    CudaBackend backend = small(64);
    for (const double damp : {0.01, 1e-3, 1e-4})
        expect_inverse_of_ill_conditioned(backend, 320, damp);
}

TEST_F(CudaCholesky, AFaultInAnyPanelIsFound) {
    CudaBackend backend = small(48);
    const HostMatrix good = positive_definite(200, 3);
    const auto factors = [&](const HostMatrix& matrix) {
        const DeviceMatrix device = device_copy(backend, matrix);
        return backend.factor_upper(device.view.float32());
    };
    EXPECT_TRUE(factors(good));
    EXPECT_FALSE(factors(HostMatrix(200, 200, 1)));
    for (const std::int64_t at : {0, 47, 48, 100, 151, 152, 199})
        for (const float wrong : {-good(at, at), std::numeric_limits<float>::quiet_NaN(), 0.0F}) {
            HostMatrix broken = good;
            broken(at, at) = wrong;
            EXPECT_FALSE(factors(broken)) << at;
        }
}

TEST_F(CudaCholesky, SharedAmongRanksItHasTheBytesOfOne) {
    const auto make = [] {
        return std::make_unique<CudaBackend>(0, DType::bfloat16,
                                             CudaBackend::Sizes{.split = {.least = 16, .side = 96, .inner = 40},
                                                                .factor_panel = 64,
                                                                .shared_least = 320,
                                                                .inverse = {.strip = 48, .largest_batched = 64}});
    };
    for (const std::int64_t n : {1, 319, 320, 321, 577})
        expect_shared(make, n, 320);
    expect_refused_together(make, 320);
    expect_refused_with_others(*make(), 320);
}

}  // namespace
}  // namespace fairgptq::testing
