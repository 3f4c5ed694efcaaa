// Ranks that share a limit, and ranks that have one each.
#include "comm/shared_limits.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <mutex>

#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

TEST(SharedLimitsTest, CountsTheRanksThatHaveTheSameHolder) {
    std::mutex mutex;
    std::vector<std::vector<int>> counts(3);
    testing::run_ranks(3, [&](Communicator& comm) {
        // The machine is everyone's, the job's step that of ranks 0 and 1, whose names begin alike; each has a task.
        const std::string step = comm.rank() < 2 ? "/job/step" : "/job/step_1";
        const std::vector<Limit> mine{
            {48, "machine", ""}, {24, step, step}, {20, step + "/task_" + std::to_string(comm.rank()), "task"}};
        const auto shared = shared_limits(mine, comm);
        const std::lock_guard lock(mutex);
        for (const SharedLimit& limit : shared)
            counts[static_cast<std::size_t>(comm.rank())].push_back(limit.ranks);
        EXPECT_EQ(shared.front().share(), 16);
    });
    EXPECT_EQ(counts, (std::vector<std::vector<int>>{{3, 2, 1}, {3, 2, 1}, {3, 1, 1}}));
}

TEST(SharedLimitsTest, RanksWithoutALimitDoNotShareIt) {
    testing::run_ranks(2, [](Communicator& comm) {
        const auto shared =
            shared_limits(comm.rank() == 0 ? std::vector<Limit>{} : std::vector<Limit>{{8, "/a", "/a"}}, comm);
        EXPECT_EQ(shared.size(), static_cast<std::size_t>(comm.rank()));
        for (const SharedLimit& limit : shared)
            EXPECT_EQ(limit.ranks, 1);
    });
}

/// As `mpirun` binds several ranks to one socket: not all have the same cores, and some do.
TEST(ShareOfCoresTest, RanksThatHaveTheSameCoresShareThem) {
    cpu_set_t all;
    ASSERT_EQ(::sched_getaffinity(0, sizeof(all), &all), 0);
    const int cores = CPU_COUNT(&all);
    if (cores < 2) GTEST_SKIP() << "needs two cores";
    std::vector<int> threads(3);
    testing::run_ranks(3, [&](Communicator& comm) {  // each a thread, with cores of its own
        if (comm.rank() == 2) {
            int first = 0;
            while (!CPU_ISSET(first, &all))
                ++first;
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(first, &one);
            ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
        }
        threads[static_cast<std::size_t>(comm.rank())] = share_of_cores(comm);
    });
    EXPECT_LE(threads[0], cores / 2);  // less where a container has less time than cores
    EXPECT_EQ(threads[0], threads[1]);
    EXPECT_EQ(threads[2], 1);
}

}  // namespace
}  // namespace fairgptq
