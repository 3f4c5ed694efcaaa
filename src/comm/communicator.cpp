#include "comm/communicator.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <string_view>

#include "comm/mpi.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

class SingleRank final : public Communicator {
  public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    int local_rank() const override { return 0; }
    void all_reduce_sum(std::span<double>) override {}
    void reduce_sum(std::span<double>, int) override {}
    std::int64_t all_reduce_max(std::int64_t value) override { return value; }
    void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                    std::span<const std::size_t> sizes) override {
        if (sizes.size() != 1 || sizes[0] != mine.size() || all.size() != mine.size())
            throw Failure("all_gather: sizes disagree");
        std::copy(mine.begin(), mine.end(), all.begin());
    }
    void broadcast(std::span<std::byte>, int) override {}
    void barrier() override {}
    void begin_barrier() override {}
    bool barrier_reached() override { return true; }
    [[noreturn]] void abort(int exit_code) override { std::_Exit(exit_code); }
};

bool is_set(const char* variable) {
    return std::getenv(variable) != nullptr;
}

/// srun without an MPI plugin starts tasks that know nothing of each other: each would take itself for the whole job.
void refuse_tasks_without_mpi() {
    const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
    if (tasks != nullptr && std::string_view(tasks) != "1")
        throw InvalidInput("srun started {} tasks without MPI between them; add --mpi=pmix to srun, or use mpirun",
                           tasks);
}

}  // namespace

std::string Communicator::broadcast_string(const std::string& text, int root) {
    const auto length =
        static_cast<std::size_t>(all_reduce_max(rank() == root ? static_cast<std::int64_t>(text.size()) : 0));
    std::string result = rank() == root ? text : std::string(length, '\0');
    broadcast(std::as_writable_bytes(std::span(result.data(), result.size())), root);
    return result;
}

std::vector<std::string> Communicator::gather_strings(const std::string& mine) {
    std::vector<std::uint64_t> lengths(static_cast<std::size_t>(size()));
    const std::uint64_t length = mine.size();
    all_gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)),
               std::vector<std::size_t>(lengths.size(), sizeof(length)));
    const std::vector<std::size_t> sizes(lengths.begin(), lengths.end());
    std::string all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), '\0');
    all_gather(std::as_bytes(std::span(mine.data(), mine.size())),
               std::as_writable_bytes(std::span(all.data(), all.size())), sizes);
    std::vector<std::string> texts;
    for (std::size_t rank = 0, at = 0; rank < sizes.size(); at += sizes[rank++])
        texts.push_back(all.substr(at, sizes[rank]));
    return texts;
}

std::unique_ptr<Communicator> make_single_rank() {
    return std::make_unique<SingleRank>();
}

std::unique_ptr<Communicator> make_communicator(int* argc, char*** argv) {
    if (is_set("OMPI_COMM_WORLD_SIZE") || is_set("PMIX_RANK") || is_set("PMI_RANK") || is_set("MPI_LOCALRANKID"))
        return make_mpi(argc, argv);
    refuse_tasks_without_mpi();
    return make_single_rank();
}

}  // namespace fairgptq
