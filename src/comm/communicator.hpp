// Ranks and their collectives. Outside comm/ nobody sees an MPI or NCCL handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fairgptq {

/// One rank's end of a group of ranks. Every collective is called by all ranks in the same order, and works on host
/// memory; comm/device_collectives.hpp has those on a device's.
class Communicator {
  public:
    virtual ~Communicator() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// Rank among those on this host: for choosing a GPU.
    virtual int local_rank() const = 0;

    /// Sums over ranks, in place.
    virtual void all_reduce_sum(std::span<double> values) = 0;
    /// The same at rank `root` alone; what it leaves in the others' values is of no use.
    virtual void reduce_sum(std::span<double> values, int root) = 0;
    /// The largest value over ranks, at every rank.
    virtual std::int64_t all_reduce_max(std::int64_t value) = 0;
    /// Every rank's bytes, end to end in rank order, at every rank. Sizes may differ, and may be 0.
    virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                            std::span<const std::size_t> sizes) = 0;
    /// Rank `root`'s bytes at every rank.
    virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
    virtual void barrier() = 0;
    /// A barrier that nobody waits in: begun by every rank, it is reached when all have begun it. One at a time, and no
    /// other collective before it is reached.
    virtual void begin_barrier() = 0;
    virtual bool barrier_reached() = 0;
    /// Ends all ranks at once, wherever they are. Never returns.
    [[noreturn]] virtual void abort(int exit_code) = 0;

    std::string broadcast_string(const std::string& text, int root);
    /// Every rank's text, in rank order, at every rank.
    std::vector<std::string> gather_strings(const std::string& mine);
};

/// Starts MPI where the program was started by mpirun or srun (and finalizes it when the object goes), else a single
/// rank.
/// @param argc, argv as main got them
std::unique_ptr<Communicator> make_communicator(int* argc, char*** argv);

/// One rank, no library.
std::unique_ptr<Communicator> make_single_rank();

}  // namespace fairgptq
