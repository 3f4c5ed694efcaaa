// Communicator against sums and copies done by hand, on as many ranks as mpirun started, and on one rank without MPI;
// the same for collectives on a device's memory, NCCL's included. `dead` and `absent`: the last rank dies, or hangs,
// before an exchange by NCCL, and the job must end.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "comm/communicator.hpp"
#include "comm/nccl_collectives.hpp"
#include "mpi/nccl_over_mpi.hpp"
#include "support/error.hpp"
#include "support_files/collective_checks.hpp"
#include "support_files/distant_memory.hpp"

using namespace fairgptq;

namespace {

using testing::expect;

void all_reduce(Communicator& comm, std::size_t count) {
    std::vector<double> values(count);
    for (std::size_t i = 0; i < count; ++i)
        values[i] = static_cast<double>(i + 1) * (comm.rank() + 1);
    comm.all_reduce_sum(values);
    const double ranks = comm.size() * (comm.size() + 1) / 2.0;
    for (std::size_t i = 0; i < count; ++i)
        expect(values[i] == static_cast<double>(i + 1) * ranks, "the sum over ranks");
}

void reduce(Communicator& comm, std::size_t count) {
    for (int root = 0; root < comm.size(); ++root) {
        std::vector<double> values(count, comm.rank() + 1.5);
        comm.reduce_sum(values, root);
        const double sum = comm.size() * (comm.size() + 1) / 2.0 + 0.5 * comm.size();
        if (comm.rank() == root) expect(values == std::vector(count, sum), "the sum at one rank");
    }
}

void all_gather(Communicator& comm, std::size_t unit) {
    // Rank r gives r·unit bytes: rank 0 gives none.
    std::vector<std::size_t> sizes(static_cast<std::size_t>(comm.size()));
    for (std::size_t r = 0; r < sizes.size(); ++r)
        sizes[r] = r * unit;
    const std::vector<std::byte> mine(sizes[static_cast<std::size_t>(comm.rank())],
                                      static_cast<std::byte>(comm.rank() + 1));
    std::vector<std::byte> all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
    comm.all_gather(mine, all, sizes);
    std::size_t at = 0;
    for (std::size_t r = 0; r < sizes.size(); ++r)
        for (std::size_t i = 0; i < sizes[r]; ++i)
            expect(all[at++] == static_cast<std::byte>(r + 1), "every rank's bytes");
    bool refused = false;
    try {
        comm.all_gather(mine, std::span(all).subspan(0, all.empty() ? 0 : all.size() - 1),
                        std::vector<std::size_t>(sizes.size() + 1, 0));
    } catch (const Failure&) {
        refused = true;
    }
    expect(refused, "sizes that disagree to be refused");
}

void device_collectives(Communicator& comm, bool over_mpi) {
    const auto cpu = make_backend("cpu");
    testing::DistantMemory distant(*cpu);
    for (MemoryOperations* memory :
         {static_cast<MemoryOperations*>(cpu.get()), static_cast<MemoryOperations*>(&distant)})
        testing::check_collectives(*memory, *make_host_collectives(*memory, comm), comm);
    if (!over_mpi) return;
    const auto nccl = make_nccl_collectives(distant, comm, std::make_unique<testing::NcclOverMpi>());
    testing::check_collectives(distant, *nccl, comm);
}

/// The last rank does not come to an exchange.
int lose_a_rank(Communicator& comm, bool dies) {
    const auto cpu = make_backend("cpu");
    NcclDeadlines deadlines;
    if (!dies) deadlines.peers = std::chrono::seconds(2);
    const auto nccl = make_nccl_collectives(*cpu, comm, std::make_unique<testing::NcclOverMpi>(), deadlines);
    if (comm.rank() == comm.size() - 1) {
        if (dies) std::raise(SIGKILL);
        ::pause();
    }
    try {
        testing::check_sums(*cpu, *nccl, comm, 10);
    } catch (const Failure& failure) {
        fmt::print(stderr, "rank {}: {}\n", comm.rank(), failure.what());
        comm.abort(1);
    }
    return 0;  // it would have found the sum
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const bool over_mpi = std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr;
        const auto comm = make_communicator(&argc, &argv);
        if (argc == 3) return lose_a_rank(*comm, std::string_view(argv[2]) == "dead");
        expect(argc == 2 && comm->size() == std::atoi(argv[1]), "as many ranks as asked for");
        expect(comm->rank() >= 0 && comm->rank() < comm->size(), "a rank below the size");
        expect(comm->local_rank() == comm->rank(), "one host");
        for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}}) {
            all_reduce(*comm, count);
            reduce(*comm, count);
            all_gather(*comm, count);
        }
        expect(comm->all_reduce_max(-5 - comm->rank()) == -5, "the largest value");
        for (int root = 0; root < comm->size(); ++root) {
            const std::string text = comm->rank() == root ? "from " + std::to_string(root) : "";
            expect(comm->broadcast_string(text, root) == "from " + std::to_string(root), "the root's text");
        }
        comm->barrier();
        device_collectives(*comm, over_mpi);
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
