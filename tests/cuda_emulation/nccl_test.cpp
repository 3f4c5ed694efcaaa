// What versions of NCCL differ in.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "backend/cuda/backend.hpp"
#include "comm/nccl_collectives.hpp"
#include "emulation.hpp"
#include "support_files/collective_checks.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(EmulatedNccl, AnAbortThatWaitsForTheOtherRanksHoldsNobodyUp) {
    emulation::set_equipment({.nccl_aborts_alone = false});
    run_ranks(2, [](Communicator& comm) {
        CudaBackend gpu(comm.rank(), DType::bfloat16);
        const DeviceDoubles values(gpu, {1, 2, 3});
        NcclDeadlines deadlines;
        deadlines.peers = milliseconds(200);
        const auto collectives = make_nccl_collectives(gpu, comm, make_nccl_calls(gpu), deadlines);
        if (comm.rank() == 0) {
            const auto begin = std::chrono::steady_clock::now();
            try {
                Exchange exchange(*collectives);
                exchange.all_reduce_sum(values.span());
                exchange.finish();
                ADD_FAILURE() << "a sum over a rank that did not come";
            } catch (const Failure&) {
                EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(6));
            }
        } else {
            std::this_thread::sleep_for(seconds(8));  // it computes, and knows of nothing
        }
        collectives->abandon();
    });
    emulation::set_equipment({});
}

}  // namespace
}  // namespace fairgptq::testing
