#include "comm/exchange_choice.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "support/error.hpp"
#include "support/machine.hpp"

namespace fairgptq {
namespace {

/// "ranks 0 and 1 share GPU 0000:3B:00.0 of node1", of the first two that share one.
std::optional<std::string> shared_gpu(const std::vector<RankDevice>& devices) {
    std::map<std::pair<std::string, std::string>, std::size_t> owners;
    for (std::size_t rank = 0; rank < devices.size(); ++rank) {
        if (devices[rank].gpu.empty()) continue;
        const auto [owner, first] = owners.emplace(std::pair(devices[rank].machine, devices[rank].gpu), rank);
        if (!first)
            return fmt::format("ranks {} and {} share GPU {} of {}", owner->second, rank, devices[rank].gpu,
                               devices[rank].host);
    }
    return std::nullopt;
}

/// "rank 3 on node1", of the first one that computes on a GPU, or on none.
std::optional<std::string> first_rank(const std::vector<RankDevice>& devices, bool with_gpu) {
    for (std::size_t rank = 0; rank < devices.size(); ++rank)
        if (devices[rank].gpu.empty() != with_gpu) return fmt::format("rank {} on {}", rank, devices[rank].host);
    return std::nullopt;
}

}  // namespace

std::vector<RankDevice> gather_devices(const Backend& backend, Communicator& comm) {
    const std::vector<std::string> hosts = comm.gather_strings(host_name());
    const std::vector<std::string> machines = comm.gather_strings(machine_id());
    const std::vector<std::string> gpus = comm.gather_strings(backend.physical_device());
    std::vector<RankDevice> devices;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank)
        devices.push_back({hosts[rank], machines[rank], gpus[rank]});
    return devices;
}

int ranks_on_device(const std::vector<RankDevice>& devices, int rank) {
    const RankDevice& mine = devices[static_cast<std::size_t>(rank)];
    return static_cast<int>(std::count_if(devices.begin(), devices.end(), [&](const RankDevice& other) {
        return other.machine == mine.machine && other.gpu == mine.gpu;
    }));
}

void check_comm_choice(CommChoice asked, bool with_nccl) {
    if (asked == CommChoice::nccl && !with_nccl)
        throw InvalidInput(
            "--comm nccl: this build has no NCCL; configure it with -DFAIRGPTQ_CUDA=ON where CMake finds nccl.h and "
            "libnccl (the package libnccl-dev, or bash jobs/setup.sh), or use --comm mpi");
}

ExchangeChoice choose_exchange(CommChoice asked, bool with_nccl, const std::vector<RankDevice>& devices) {
    check_comm_choice(asked, with_nccl);
    const std::optional<std::string> on_cpu = first_rank(devices, false), on_gpu = first_rank(devices, true);
    if (on_cpu && on_gpu)
        throw InvalidInput(
            "{} computes on a GPU, and {} on the CPU: all must have one kind of device; --device cuda says what keeps "
            "that one from a GPU, and --device cpu takes the CPU everywhere",
            *on_gpu, *on_cpu);
    if (asked == CommChoice::mpi) return {};
    const std::optional<std::string> shared = shared_gpu(devices);
    if (asked == CommChoice::nccl) {
        if (on_cpu)
            throw InvalidInput(
                "--comm nccl exchanges the memory of GPUs, and {} computes on the CPU; use --comm mpi, or --device "
                "cuda",
                *on_cpu);
        if (shared)
            throw InvalidInput(
                "--comm nccl needs a GPU for each rank, and {}; start at most as many ranks on a host as it has GPUs, "
                "or use --comm mpi",
                *shared);
        return {true, {}};
    }
    if (devices.size() == 1 || on_cpu) return {};
    if (shared) return {false, fmt::format("{}: ranks exchange through MPI and the hosts' memory, not NCCL", *shared)};
    if (!with_nccl) return {false, "this build has no NCCL: ranks exchange through MPI and the hosts' memory"};
    return {true, {}};
}

}  // namespace fairgptq
