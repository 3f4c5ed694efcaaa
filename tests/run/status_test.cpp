// What a log says of a run: every state, half lines, clocks that disagree.
#include "run/status.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/error.hpp"
#include "support/utc_time.hpp"

namespace fairgptq {
namespace {

std::string start_with(int finished_layers) {
    return fmt::format(
        R"({{"event":"start","ranks":2,"threads":4,"device":"cpu","layers":10,"finished_layers":{},"time":"2026-03-01T10:00:00.000Z"}})"
        "\n",
        finished_layers);
}
const std::string start = start_with(0);
const double ten = *seconds_since_epoch("2026-03-01T10:00:00.000Z");

std::string layer(int index, double seconds, const char* kind = "layer") {
    return fmt::format(
        R"({{"event":"{}","layer":{},"seconds":{},"ranks":{{"all_reduce":[0.5,0.1],"exchange":[0.1,0.0]}},"time":"2026-03-01T10:00:{:02}.500Z"}})"
        "\n",
        kind, index, seconds, index + 1);
}

TEST(RunStatus, ARunningRunSaysRateTimeLeftAndWaits) {
    const RunStatus status = read_status(start + layer(0, 2) + layer(1, 2), ten + 3.5);
    EXPECT_EQ(status.state, RunState::running);
    EXPECT_EQ(status.finished, 2);
    EXPECT_EQ(status.layers, 10);
    EXPECT_DOUBLE_EQ(status.seconds_a_layer, 2);
    EXPECT_DOUBLE_EQ(status.seconds_left, 16);
    EXPECT_NEAR(status.age, 1, 1e-9);
    ASSERT_EQ(status.waiting.size(), 2U);
    EXPECT_NEAR(status.waiting[0], 1.2 / 4, 1e-12);
    EXPECT_NEAR(status.waiting[1], 0.2 / 4, 1e-12);
    const std::string text = status_text("RUN", status);
    for (const char* part : {"RUN: running, 2 of 10 layers", "2.00 s a layer", "16 s left", "rank 0 30.0 %"})
        EXPECT_NE(text.find(part), std::string::npos) << text;
}

// A first layer that takes a tenth of the others': neither is its rate theirs, nor their time a stall.
TEST(RunStatus, LayersOfTwoKindsAreWeighed) {
    std::string begun = start;
    begun.insert(begun.find("\"layers\""), R"("layer_work":[0.1,1,1,1,1,1,1,1,1,1],)");
    RunStatus status = read_status(begun + layer(0, 30), ten + 1000);
    EXPECT_EQ(status.state, RunState::running) << "4 times 300 s are not over";
    EXPECT_DOUBLE_EQ(status.seconds_a_layer, 30);
    EXPECT_NEAR(status.seconds_left, 9 * 300, 1e-9);
    EXPECT_EQ(read_status(begun + layer(0, 30), ten + 1300).state, RunState::stalled);
    EXPECT_EQ(read_status(start + layer(0, 30), ten + 1000).state, RunState::stalled);
    status = read_status(begun + layer(0, 30) + layer(1, 190), ten + 3);
    EXPECT_NEAR(status.seconds_left, 220 / 1.1 * 8, 1e-9);
    EXPECT_DOUBLE_EQ(status.slowest_layer, 190);
}

TEST(RunStatus, OnlyTheLastSessionCounts) {
    const std::string log = start + layer(0, 50) + layer(1, 50) + start_with(2) + layer(0, 1, "replayed");
    RunStatus status = read_status(log, ten + 2);
    EXPECT_TRUE(status.replaying);
    EXPECT_EQ(status.finished, 1);
    EXPECT_EQ(status.seconds_a_layer, 0);
    status = read_status(log + layer(1, 3, "replayed") + layer(2, 4), ten + 5);
    EXPECT_FALSE(status.replaying);
    EXPECT_DOUBLE_EQ(status.seconds_left, 7 * 4);
}

TEST(RunStatus, LayersBehindAGapCount) {
    const std::string log = start_with(8) + layer(0, 1, "replayed") + layer(1, 2);
    const RunStatus status = read_status(log, ten + 3);
    EXPECT_EQ(status.finished, 9);
    EXPECT_DOUBLE_EQ(status.seconds_left, 2);
    const std::string stopped = "{\"event\":\"stopped\"}\n";
    EXPECT_EQ(read_status(log + stopped, ten + 3).finished, 9);
    const std::string discarded = log + "{\"event\":\"discarded\",\"from\":2,\"discarded_layers\":7}\n";
    EXPECT_EQ(read_status(discarded, ten + 3).finished, 2);
    EXPECT_EQ(read_status(discarded + layer(2, 2) + stopped, ten + 6).finished, 3);
    EXPECT_EQ(read_status(discarded + start_with(2) + layer(0, 1, "replayed") + stopped, ten + 6).finished, 2);
}

TEST(RunStatus, SilenceFarLongerThanALayerIsAStall) {
    const std::string log = start + layer(0, 30);
    EXPECT_EQ(read_status(log, ten, 119).state, RunState::running);
    EXPECT_EQ(read_status(log, ten, 121).state, RunState::stalled);
    EXPECT_EQ(read_status(start + layer(0, 0.1), ten, 59).state, RunState::running);
    EXPECT_EQ(read_status(start + layer(0, 0.1), ten, 61).state, RunState::stalled);
    // Before the first layer nobody knows how long one takes, but an earlier session does.
    EXPECT_EQ(read_status(start, ten, 1e6).state, RunState::running);
    EXPECT_EQ(read_status(log + start, ten, 121).state, RunState::stalled);
    EXPECT_NE(status_text("RUN", read_status(log, ten, 121)).find("--resume"), std::string::npos);
}

TEST(RunStatus, AClockBehindTheLogsIsNoStallAndNoNegativeAge) {
    const RunStatus status = read_status(start + layer(0, 1), ten - 86400);
    EXPECT_EQ(status.state, RunState::running);
    EXPECT_EQ(status.age, 0);
}

TEST(RunStatus, EndsAreWhatTheLogSays) {
    const auto ended = [](const std::string& event) {
        return read_status(start + layer(0, 1) + event + "\n", ten, 1e6);
    };
    EXPECT_EQ(ended(R"({"event":"done","seconds":4})").state, RunState::done);
    EXPECT_EQ(ended(R"({"event":"done","seconds":4})").finished, 10);
    EXPECT_EQ(ended(R"({"event":"stopped"})").state, RunState::stopped);
    const RunStatus failed = ended(R"({"event":"failed","rank":1,"message":"no space"})");
    EXPECT_EQ(failed.state, RunState::failed);
    EXPECT_NE(status_text("RUN", failed).find("rank 1: no space"), std::string::npos);
}

TEST(RunStatus, HalfLinesAndOtherThingsArePassedOver) {
    const RunStatus status =
        read_status(start + "{\"event\":\"la\n[1]\n3\n{\"event\":7}\n" + layer(0, 2) + layer(1, 2).substr(0, 60), ten);
    EXPECT_EQ(status.finished, 1);
    EXPECT_THROW(read_status("", ten), InvalidInput);
    EXPECT_THROW(read_status(layer(0, 1), ten), InvalidInput);
    EXPECT_THROW(read_status(start.substr(0, start.size() - 1), ten), InvalidInput);
    // Values of another kind than expected.
    const RunStatus odd = read_status(
        "{\"event\":\"start\",\"ranks\":\"x\",\"layers\":null}\n{\"event\":\"layer\",\"layer\":\"3\",\"ranks\":{\"all_"
        "reduce\":[null]}}\n",
        ten);
    EXPECT_EQ(odd.finished, 0);
}

TEST(RunStatus, OfManyRanksThoseThatTheOthersWaitForAreShown) {
    std::string row = "0.9";
    for (int rank = 1; rank < 100; ++rank)
        row += rank == 42 ? ",0.01" : ",0.9";
    const std::string log =
        start + fmt::format(R"({{"event":"layer","layer":0,"seconds":1,"ranks":{{"all_reduce":[{}]}}}})", row) + "\n";
    const std::string text = status_text("RUN", read_status(log, ten));
    EXPECT_NE(text.find("waits: rank 42 1.0 %"), std::string::npos) << text;
    EXPECT_LT(text.size(), 600U);
}

TEST(UtcTime, ReadsWhatItWrites) {
    EXPECT_DOUBLE_EQ(*seconds_since_epoch("1970-01-02T00:00:01.250Z"), 86401.25);
    EXPECT_TRUE(seconds_since_epoch(now_in_utc()).has_value());
    for (const char* text : {"", "today", "2026-03-01T10:00:00Z", "2026-03-01T10:00:00.000+"})
        EXPECT_FALSE(seconds_since_epoch(text).has_value()) << text;
}

}  // namespace
}  // namespace fairgptq
