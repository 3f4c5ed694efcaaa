// Ranks and their collectives. Outside comm/ nobody sees an MPI or NCCL handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace fairgptq {

/// One rank's end of a group of ranks. Every collective is called by all ranks in the same order.
/// Device spans are memory of the backend that the communicator was made for (host memory for the CPU).
class Communicator {
  public:
    virtual ~Communicator() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// Rank among those on this host, and how many there are: for choosing a GPU and a share of the cores.
    virtual int local_rank() const = 0;
    virtual int local_size() const = 0;

    /// Sums over ranks, in place, device memory.
    virtual void all_reduce_sum(std::span<double> values) = 0;
    /// Host memory; the largest value over ranks, at every rank.
    virtual std::int64_t all_reduce_max(std::int64_t value) = 0;
    /// Host memory: every rank's bytes, end to end in rank order, at every rank. Sizes may differ, and may be 0.
    virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                            std::span<const std::size_t> sizes) = 0;
    /// Host memory: rank `root`'s bytes at every rank.
    virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
    virtual void barrier() = 0;
    /// Ends all ranks at once, wherever they are. Never returns.
    [[noreturn]] virtual void abort(int exit_code) = 0;

    std::string broadcast_string(const std::string& text, int root);
};

/// Starts MPI where the program was started by mpirun or srun (and finalizes it when the object goes), else a single
/// rank.
/// @param argc, argv as main got them
std::unique_ptr<Communicator> make_communicator(int* argc, char*** argv);

/// One rank, no library.
std::unique_ptr<Communicator> make_single_rank();

}  // namespace fairgptq
