// The same checks for every kind of collectives, on 1 to 4 ranks; and NCCL's ways to fail.
#include "comm/device_collectives.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <tuple>

#include "comm/nccl_collectives.hpp"
#include "support_files/collective_checks.hpp"
#include "support_files/distant_memory.hpp"
#include "support_files/nccl_stand_in.hpp"
#include "support_files/said.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq::testing {
namespace {

using std::chrono::milliseconds;

enum class Kind { host, staged, nccl };

class CollectivesTest : public ::testing::TestWithParam<std::tuple<Kind, int>> {
  protected:
    /// Runs `body` at every rank with collectives of the kind that the case is about.
    static void run(const std::function<void(MemoryOperations&, DeviceCollectives&, Communicator&)>& body) {
        const Kind kind = std::get<0>(GetParam());
        const int ranks = std::get<1>(GetParam());
        NcclWorld world(ranks);
        run_ranks(ranks, [&](Communicator& comm) {
            const auto cpu = make_backend("cpu");
            DistantMemory distant(*cpu);
            MemoryOperations& memory = kind == Kind::host ? static_cast<MemoryOperations&>(*cpu) : distant;
            const auto collectives = kind == Kind::nccl
                                         ? make_nccl_collectives(memory, comm, std::make_unique<NcclStandIn>(world))
                                         : make_host_collectives(memory, comm);
            body(memory, *collectives, comm);
        });
    }
};

TEST_P(CollectivesTest, SumsAndGathers) {
    run([](MemoryOperations& memory, DeviceCollectives& collectives, Communicator& comm) {
        EXPECT_FALSE(collectives.name().empty());
        check_collectives(memory, collectives, comm);
    });
}

TEST_P(CollectivesTest, SizesThatDisagreeAreRefused) {
    run([](MemoryOperations&, DeviceCollectives& collectives, Communicator& comm) {
        comm.barrier();  // nobody gives up while another rank still joins
        check_refusal(collectives, comm);
    });
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<Kind, int>>& info) {
    const auto [kind, ranks] = info.param;
    return std::string(kind == Kind::host ? "host" : kind == Kind::staged ? "staged" : "nccl") + std::to_string(ranks);
}
INSTANTIATE_TEST_SUITE_P(Kinds, CollectivesTest,
                         ::testing::Combine(::testing::Values(Kind::host, Kind::staged, Kind::nccl),
                                            ::testing::Range(1, 5)),
                         name_of);

/// Deadlines that a test can wait for.
const NcclDeadlines short_deadlines{milliseconds(300), milliseconds(200), 1e9, milliseconds(300)};

/// Whether some rank says this, and every other one at least that it lost that rank.
void expect_said(const std::vector<std::string>& said, const std::string& words) {
    bool found = false;
    for (const std::string& message : said) {
        found = found || message.find(words) != std::string::npos;
        EXPECT_TRUE(message.find(words) != std::string::npos || message.rfind("NCCL lost the other ranks", 0) == 0)
            << message;
    }
    EXPECT_TRUE(found) << words;
}

/// What each rank's exchange of one sum ends with, and that all end within seconds.
std::vector<std::string> failures(NcclWorld& world, int ranks, const std::function<bool(int)>& comes,
                                  NcclDeadlines deadlines = short_deadlines) {
    std::vector<std::string> said(static_cast<std::size_t>(ranks));
    std::atomic<int> ended = 0;
    const auto begin = std::chrono::steady_clock::now();
    run_ranks(ranks, [&](Communicator& comm) {
        const auto cpu = make_backend("cpu");
        std::string& message = said[static_cast<std::size_t>(comm.rank())];
        try {
            const auto collectives = make_nccl_collectives(*cpu, comm, std::make_unique<NcclStandIn>(world), deadlines);
            if (comes(comm.rank())) {
                const DeviceDoubles values(*cpu, {1, 2, 3});
                Exchange exchange(*collectives);
                exchange.all_reduce_sum(values.span());
                exchange.finish();
                message = "done";
            } else {
                while (ended < ranks - 1)
                    std::this_thread::sleep_for(milliseconds(1));
                message = "did not come";
            }
        } catch (const std::exception& failure) {
            message = failure.what();
        }
        ++ended;
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    return said;
}

TEST(NcclCollectives, ALostConnectionEndsEveryRankAtOnce) {
    NcclWorld world(3);
    world.lost_from = NcclWorld::tried_out;
    // With the deadlines of a real run: it is not they that end it.
    for (const std::string& message : failures(
             world, 3, [](int) { return true; }, NcclDeadlines{}))
        EXPECT_NE(message.find("remote process exited"), std::string::npos) << message;
}

TEST(NcclCollectives, ATransferThatDoesNotEndIsGivenUp) {
    NcclWorld world(2);
    world.stuck_from = NcclWorld::tried_out;
    expect_said(failures(world, 2, [](int) { return true; }), "a transfer that all ranks had come to");
}

TEST(NcclCollectives, ARankThatDoesNotComeIsNotWaitedForForEver) {
    NcclWorld world(3);
    const std::vector<std::string> said = failures(world, 3, [](int rank) { return rank != 1; });
    EXPECT_EQ(said[1], "did not come");
    expect_said({said[0], said[2]}, "waiting for the other ranks");
}

TEST(NcclCollectives, ASlowRankIsWaitedForBeyondATransfersDeadline) {
    NcclWorld world(2);
    run_ranks(2, [&](Communicator& comm) {
        const auto cpu = make_backend("cpu");
        const auto collectives = make_nccl_collectives(*cpu, comm, std::make_unique<NcclStandIn>(world),
                                                       {std::chrono::seconds(20), milliseconds(150), 1e9});
        if (comm.rank() == 1) std::this_thread::sleep_for(milliseconds(600));
        check_sums(*cpu, *collectives, comm, 10);
    });
}

TEST(NcclCollectives, WhatDoesNotComeOutRightIsRefusedBeforeWorkBegins) {
    for (bool NcclWorld::*wrong :
         {&NcclWorld::adds_wrongly, &NcclWorld::reduces_wrongly, &NcclWorld::gathers_wrongly}) {
        NcclWorld world(2);
        world.*wrong = true;
        expect_said(failures(world, 2, [](int) { return true; }), wrong == &NcclWorld::gathers_wrongly
                                                                      ? "1 instead of 2; use --comm mpi"
                                                                      : "4 instead of 3; use --comm mpi");
    }
}

TEST(NcclCollectives, EachKindOfExchangeIsTriedOutBeforeWorkBegins) {
    for (int kind = 0; kind < NcclWorld::tried_out; ++kind) {
        NcclWorld world(2);
        world.stuck_from = kind;
        expect_said(failures(world, 2, [](int) { return true; }), "(a first ");
    }
}

TEST(NcclCollectives, RanksThatDoNotMeetAreGivenUp) {
    NcclWorld world(2);
    world.stuck_from = -1;  // joining itself
    expect_said(failures(world, 2, [](int) { return true; }), "joining the other ranks");
}

/// What 3 ranks say that take NCCL if it comes about, and what they get.
void expect_collectives(NcclWorld& world, const std::string& name, const std::string& words, int ranks_with_calls = 3) {
    SCOPED_TRACE(words);
    const Said said;
    run_ranks(3, [&](Communicator& comm) {
        const auto cpu = make_backend("cpu");
        DistantMemory distant(*cpu);
        const auto make_calls = [&]() -> std::unique_ptr<NcclCalls> {
            if (comm.rank() >= ranks_with_calls) throw Failure("no stream");
            return std::make_unique<NcclStandIn>(world);
        };
        const auto collectives = make_nccl_or_host_collectives(distant, comm, make_calls, short_deadlines);
        EXPECT_EQ(collectives->name().substr(0, name.size()), name);
        check_collectives(distant, *collectives, comm);
    });
    EXPECT_EQ(said.count("MPI and the hosts' memory"), name == "nccl" ? 0 : 3) << said.text();
    EXPECT_EQ(said.count(words), name == "nccl" ? 0 : 3) << said.text();
}

TEST(NcclCollectives, WhereItDoesNotComeAboutTheHostsDo) {
    NcclWorld good(3), no_calls(3), no_id(3), one_missing(3), no_meeting(3), wrong(3);
    expect_collectives(good, "nccl", "NCCL");
    expect_collectives(no_calls, "mpi", "no stream", 2);
    no_id.no_id = true;
    expect_collectives(no_id, "mpi", "no id");
    no_meeting.stuck_from = -1;
    expect_collectives(no_meeting, "mpi", "joining the other ranks");
    // Some ranks may find the others gone first.
    one_missing.joins_not = 1;
    expect_collectives(one_missing, "mpi", "NCCL");
    wrong.adds_wrongly = true;
    expect_collectives(wrong, "mpi", "NCCL");
}

TEST(NcclCollectives, AnExceptionInTheMiddleLeavesNothingUnderWay) {
    NcclWorld world(2);
    world.stuck_from = NcclWorld::tried_out;
    run_ranks(2, [&](Communicator& comm) {
        const auto cpu = make_backend("cpu");
        const auto collectives = make_nccl_collectives(*cpu, comm, std::make_unique<NcclStandIn>(world));
        const DeviceDoubles values(*cpu, {1, 2, 3});
        EXPECT_THROW(
            {
                Exchange exchange(*collectives);
                exchange.all_reduce_sum(values.span());
                throw std::runtime_error("the computation failed");
            },
            std::runtime_error);
        EXPECT_TRUE(world.given_up());
    });
}

}  // namespace
}  // namespace fairgptq::testing
