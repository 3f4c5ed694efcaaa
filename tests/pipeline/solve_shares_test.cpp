// Every target is solved, logged and written, each by whoever has it.
#include "pipeline/solve_shares.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

TEST(SolveShares, EveryTargetHasASolverALogAndAWriter) {
    for (const int ranks : {1, 2, 3, 5})
        for (const std::size_t targets : {0, 1, 2, 5, 6, 7})
            for (const std::int64_t layer : {0, 1, 4}) {
                std::vector<std::atomic<int>> solvers(targets), logs(targets), writers(targets), shared(targets);
                testing::run_ranks(ranks, [&](Communicator& comm) {
                    const SolveShares shares(targets, comm);
                    for (std::size_t target = 0; target < targets; ++target) {
                        solvers[target] += shares.mine(target);
                        shared[target] += shares.by_all(target);
                        // Only who has a target's solution can log or write it.
                        logs[target] += shares.logs(target) && shares.mine(target);
                        writers[target] += shares.writes(target, layer) && shares.mine(target);
                    }
                });
                std::size_t by_all = 0;
                for (std::size_t target = 0; target < targets; ++target) {
                    EXPECT_EQ(solvers[target], shared[target] == ranks ? ranks : 1);
                    EXPECT_EQ(logs[target], 1);
                    EXPECT_EQ(writers[target], 1);
                    by_all += shared[target] == ranks ? 1 : 0;
                }
                EXPECT_EQ(by_all, targets % static_cast<std::size_t>(ranks));
            }
}

}  // namespace
}  // namespace fairgptq
