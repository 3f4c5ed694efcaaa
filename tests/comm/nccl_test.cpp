// NCCL itself, between the GPUs of this machine, a thread each. Compiled and linked wherever CUDA and NCCL are; skips,
// visibly, where no GPU is.
#ifdef FAIRGPTQ_NCCL
#include <gtest/gtest.h>

#include <algorithm>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "comm/nccl_collectives.hpp"
#include "comm/together.hpp"
#include "support_files/collective_checks.hpp"
#include "support_files/shared_factorization.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

TEST(NcclBuild, TakesNoCpuForAGpu) {
    EXPECT_TRUE(built_with_nccl());
    const auto cpu = make_backend("cpu");
    EXPECT_THROW(make_nccl_calls(*cpu), Failure);
}

class NcclTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (cuda::device_count() == 0) GTEST_SKIP() << "this machine has no GPU";
    }
    /// Runs `body` on every number of GPUs that there is, a rank each.
    static void run(const std::function<void(Backend&, DeviceCollectives&, Communicator&)>& body) {
        for (int ranks = 1; ranks <= cuda::device_count(); ++ranks)
            testing::run_ranks(ranks, [&](Communicator& comm) {
                CudaBackend gpu(comm.rank(), DType::bfloat16);
                const auto collectives = make_nccl_collectives(gpu, comm, make_nccl_calls(gpu));
                body(gpu, *collectives, comm);
            });
    }
};

TEST_F(NcclTest, SumsAndGathers) {
    run([](Backend& gpu, DeviceCollectives& collectives, Communicator& comm) {
        EXPECT_EQ(collectives.name().rfind("nccl ", 0), 0U);
        testing::check_collectives(gpu, collectives, comm);
    });
}

TEST_F(NcclTest, ASumSeesWhatTheDeviceWasAskedForBeforeAndIsSeenByWhatComesAfter) {
    run([](Backend& gpu, DeviceCollectives& collectives, Communicator& comm) {
        const std::size_t count = std::size_t{1} << 22U;
        const std::vector<double> ones(count, 1);
        const testing::DeviceDoubles source(gpu, ones), sum(gpu, std::vector<double>(count, 7)), copy(gpu, ones);
        for (int round = 0; round < 5; ++round) {
            gpu.zero(sum.span().data(), sum.span().size_bytes());
            gpu.copy_on_device(sum.span().data(), source.span().data(), sum.span().size_bytes());
            Exchange exchange(collectives);
            exchange.all_reduce_sum(sum.span());
            exchange.finish();
            gpu.copy_on_device(copy.span().data(), sum.span().data(), sum.span().size_bytes());
            EXPECT_EQ(copy.host(), std::vector<double>(count, comm.size()));
        }
    });
}

TEST_F(NcclTest, AFactorizationSharedByGpusHasTheBytesOfOne) {
    const CudaBackend::Sizes sizes{.split = {.least = 16, .side = 96, .inner = 40},
                                   .factor_panel = 64,
                                   .shared_least = 320,
                                   .inverse = {.strip = 48, .largest_batched = 64}};
    const testing::HostMatrix matrix = testing::correlated(320);
    CudaBackend one(0, DType::bfloat16, sizes);
    Peers alone;
    const testing::Factored expected = testing::factor_and_invert(one, matrix, alone);
    ASSERT_TRUE(expected.factored);
    for (int ranks = 1; ranks <= cuda::device_count(); ++ranks)
        testing::run_ranks(ranks, [&](Communicator& comm) {
            CudaBackend gpu(comm.rank(), DType::bfloat16, sizes);
            const auto collectives = make_nccl_collectives(gpu, comm, make_nccl_calls(gpu));
            RankPeers peers(gpu, comm, *collectives);
            const testing::Factored found = testing::factor_and_invert(gpu, matrix, peers);
            EXPECT_EQ(found.factor.values, expected.factor.values);
            EXPECT_EQ(found.inverse.values, expected.inverse.values);
            EXPECT_EQ(std::ranges::count_if(found.elements, [](auto elements) { return elements > 0; }),
                      ranks == 1 ? 0 : std::min(ranks, 4));
        });
}

TEST_F(NcclTest, TwoRanksOnOneGpuAreRefused) {
    testing::run_ranks(2, [](Communicator& comm) {
        CudaBackend gpu(0, DType::bfloat16);
        try {
            make_nccl_collectives(gpu, comm, make_nccl_calls(gpu));
            ADD_FAILURE() << "accepted";
        } catch (const SharedFailure& failure) {
            EXPECT_NE(std::string(failure.what()).find("NCCL lost the other ranks (joining"), std::string::npos)
                << failure.what();
        }
    });
}

TEST_F(NcclTest, ARankThatDoesNotComeIsGivenUpAndTheGpuGoesOn) {
    if (cuda::device_count() < 2) GTEST_SKIP() << "this machine has one GPU";
    testing::run_ranks(2, [](Communicator& comm) {
        CudaBackend gpu(comm.rank(), DType::bfloat16);
        const testing::DeviceDoubles values(gpu, {1, 2, 3});
        {
            NcclDeadlines deadlines;
            deadlines.peers = std::chrono::seconds(2);
            const auto collectives = make_nccl_collectives(gpu, comm, make_nccl_calls(gpu), deadlines);
            if (comm.rank() == 0) {
                Exchange exchange(*collectives);
                exchange.all_reduce_sum(values.span());
                EXPECT_THROW(exchange.finish(), Failure);
            } else {
                std::this_thread::sleep_for(std::chrono::seconds(4));
                collectives->abandon();
            }
        }
        gpu.synchronize();
        EXPECT_EQ(values.host().size(), 3U);
    });
}

}  // namespace
}  // namespace fairgptq
#endif
