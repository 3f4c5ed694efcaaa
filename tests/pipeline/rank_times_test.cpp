// The stopwatch leaves nothing out, and what is said of ranks is true of each.
#include "pipeline/rank_times.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

double at(const PhaseSeconds& seconds, Phase phase) {
    return seconds[static_cast<std::size_t>(phase)];
}

TEST(PhaseClock, ChargesAllTimeOnce) {
    int settled = 0;
    PhaseClock clock([&settled] { ++settled; });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    clock.spent(Phase::forward);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    clock.spent(Phase::factor);
    clock.spent(Phase::forward);
    EXPECT_EQ(settled, 3);
    EXPECT_GE(at(clock.seconds(), Phase::forward), 0.02);
    EXPECT_GE(at(clock.seconds(), Phase::factor), 0.01);
    const double sum = std::accumulate(clock.seconds().begin(), clock.seconds().end(), 0.0);
    EXPECT_LE(sum, clock.elapsed());
    EXPECT_GE(sum, 0.03);
}

TEST(RankTimes, MeansRowsAndWhatIsUnaccounted) {
    testing::run_ranks(3, [](Communicator& comm) {
        RankTimes mine{{}, 10};
        mine.phases[static_cast<std::size_t>(Phase::forward)] = 9.0 - comm.rank();
        mine.phases[static_cast<std::size_t>(Phase::all_reduce)] = comm.rank();
        const std::vector<RankTimes> all = gather_times(comm, mine);
        EXPECT_NEAR(accounted(all), 0.9, 1e-12);
        nlohmann::json event;
        add_times(event, all);
        EXPECT_EQ(event["phases"]["forward"], 8.0);
        EXPECT_EQ(event["ranks"]["all_reduce"], (nlohmann::json{0.0, 1.0, 2.0}));
        EXPECT_EQ(event["accounted"], 0.9);
        EXPECT_EQ(
            times_text(all),
            "forward 80.0 %, all_reduce 10.0 %; waiting in all-reduce: most at rank 2 (20.0 %); 90.0 % accounted for");
    });
}

TEST(RankTimes, OneRankHasNoRows) {
    nlohmann::json event;
    add_times(event, {RankTimes{}});
    EXPECT_FALSE(event.contains("ranks"));
    EXPECT_EQ(event["accounted"], 1.0);
}

}  // namespace
}  // namespace fairgptq
