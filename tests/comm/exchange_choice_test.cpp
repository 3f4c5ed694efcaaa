// --comm on clusters that no test has: which ranks have which GPUs decides.
#include "comm/exchange_choice.hpp"

#include <gtest/gtest.h>

#include "support/error.hpp"
#include "support_files/refusal.hpp"
#include "support_files/thread_ranks.hpp"

namespace fairgptq {
namespace {

const std::vector<RankDevice> a_gpu_each{{"node1", "boot1", "0000:01:00.0"},
                                         {"node1", "boot1", "0000:02:00.0"},
                                         {"node2", "boot2", "0000:01:00.0"},
                                         {"node2", "boot2", "0000:02:00.0"}};

std::vector<RankDevice> with(std::size_t rank, const RankDevice& device) {
    std::vector<RankDevice> devices = a_gpu_each;
    devices[rank] = device;
    return devices;
}

std::string refusal(CommChoice asked, bool with_nccl, const std::vector<RankDevice>& devices) {
    return testing::refusal_of([&] { choose_exchange(asked, with_nccl, devices); });
}

TEST(ExchangeChoice, AGpuEachIsNccl) {
    for (const CommChoice asked : {CommChoice::automatic, CommChoice::nccl}) {
        const ExchangeChoice choice = choose_exchange(asked, true, a_gpu_each);
        EXPECT_TRUE(choice.nccl);
        EXPECT_EQ(choice.notice, "");
    }
    EXPECT_FALSE(choose_exchange(CommChoice::mpi, true, a_gpu_each).nccl);
}

TEST(ExchangeChoice, RanksThatShareAGpuFallBackAndSaySo) {
    // A container of another name on the same machine.
    const std::vector<RankDevice> devices = with(3, {"container", "boot2", "0000:01:00.0"});
    const ExchangeChoice choice = choose_exchange(CommChoice::automatic, true, devices);
    EXPECT_FALSE(choice.nccl);
    EXPECT_NE(choice.notice.find("ranks 2 and 3 share GPU 0000:01:00.0 of container"), std::string::npos)
        << choice.notice;
    EXPECT_EQ(choice.notice.find('\n'), std::string::npos);
    const std::string said = refusal(CommChoice::nccl, true, devices);
    EXPECT_NE(said.find("--comm nccl needs a GPU for each rank, and ranks 2 and 3 share"), std::string::npos) << said;
    EXPECT_EQ(choose_exchange(CommChoice::mpi, true, devices).notice, "");
}

TEST(ExchangeChoice, WithoutGpusItIsMpi) {
    const std::vector<RankDevice> cpus{{"node1", "boot1", ""}, {"node1", "boot1", ""}};
    const ExchangeChoice choice = choose_exchange(CommChoice::automatic, true, cpus);
    EXPECT_FALSE(choice.nccl);
    EXPECT_EQ(choice.notice, "");
    EXPECT_NE(refusal(CommChoice::nccl, true, cpus).find("rank 0 on node1 computes on the CPU"), std::string::npos);
}

TEST(ExchangeChoice, ARankWithoutAGpuAmongRanksWithOneIsRefused) {
    for (const CommChoice asked : {CommChoice::automatic, CommChoice::mpi, CommChoice::nccl})
        for (const bool with_nccl : {true, false}) {
            if (asked == CommChoice::nccl && !with_nccl) continue;
            const std::string said = refusal(asked, with_nccl, with(2, {"node2", "boot2", ""}));
            EXPECT_EQ(said.rfind("rank 0 on node1 computes on a GPU, and rank 2 on node2 on the CPU: ", 0), 0U) << said;
        }
}

TEST(ExchangeChoice, ABuildWithoutNccl) {
    EXPECT_NE(refusal(CommChoice::nccl, false, a_gpu_each).find("libnccl-dev"), std::string::npos);
    const ExchangeChoice choice = choose_exchange(CommChoice::automatic, false, a_gpu_each);
    EXPECT_FALSE(choice.nccl);
    EXPECT_NE(choice.notice.find("no NCCL"), std::string::npos);
    // One rank has nothing to exchange.
    EXPECT_EQ(choose_exchange(CommChoice::automatic, false, {a_gpu_each.front()}).notice, "");
}

TEST(ExchangeChoice, EveryRankKnowsEveryDevice) {
    testing::run_ranks(3, [](Communicator& comm) {
        const auto cpu = make_backend("cpu");
        const std::vector<RankDevice> devices = gather_devices(*cpu, comm);
        ASSERT_EQ(devices.size(), 3U);
        for (const RankDevice& device : devices) {
            EXPECT_FALSE(device.host.empty());
            EXPECT_EQ(device.machine, devices.front().machine);
            EXPECT_EQ(device.gpu, "");
        }
        const std::vector<std::string> texts =
            comm.gather_strings(std::string(static_cast<std::size_t>(comm.rank()), 'x'));
        EXPECT_EQ(texts, (std::vector<std::string>{"", "x", "xx"}));
    });
}

}  // namespace
}  // namespace fairgptq
