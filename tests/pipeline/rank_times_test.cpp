// The stopwatch leaves nothing out, and what is said of ranks is true of each.
#include "pipeline/rank_times.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
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
    clock.enter(Phase::forward);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    clock.enter(Phase::factor);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    clock.charge();
    EXPECT_EQ(settled, 3);
    EXPECT_GE(at(clock.seconds(), Phase::forward), 0.02);
    EXPECT_GE(at(clock.seconds(), Phase::factor), 0.01);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    clock.enter(Phase::forward);
    EXPECT_GE(at(clock.seconds(), Phase::factor), 0.02);
    const double sum = std::accumulate(clock.seconds().begin(), clock.seconds().end(), 0.0);
    EXPECT_LE(sum, clock.elapsed());
    EXPECT_GE(sum, 0.04);
}

class WrittenTimeline final : public Timeline {
  public:
    explicit WrittenTimeline(std::string& text) : text_(text) {}
    void push(const std::string& name) override { text_ += "(" + name; }
    void pop() override { text_ += ")"; }

  private:
    std::string& text_;
};

TEST(PhaseClock, PhasesAndSpansAreRangesOneInTheOther) {
    std::string text;
    PhaseClock clock;
    clock.enter(Phase::read);
    {
        const PhaseClock::Shown shown(clock, std::make_unique<WrittenTimeline>(text));
        const PhaseClock::Span layer(clock, "layer 0");
        clock.enter(Phase::read);
        clock.enter(Phase::forward);
        try {
            const PhaseClock::Span stage(clock, "stage");
            clock.enter(Phase::factor);
            throw Failure("it ends here");
        } catch (const Failure&) {
        }
        clock.charge();
        clock.enter(Phase::write);
    }
    clock.enter(Phase::exchange);
    const PhaseClock::Span unseen(clock, "layer 1");
    EXPECT_EQ(text, "(read)(layer 0(read)(forward)(stage(forward)(factor))(factor)(write))(write)");
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
