// Collectives on a device's memory: through the host's for one rank and for MPI, from device to device for NCCL.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "backend/memory.hpp"
#include "comm/communicator.hpp"

namespace fairgptq {

/// What all ranks of a Communicator do together with their devices' memory. What is begun may still travel when the
/// call returns, so that the device can compute meanwhile; finish() waits for it. Every rank begins the same in the
/// same order, and calls no collective of the Communicator between a begin and its finish(). Use it through Exchange.
class DeviceCollectives {
  public:
    virtual ~DeviceCollectives() = default;
    /// "mpi", "nccl 2.28.9": for the log.
    virtual std::string name() const = 0;
    /// Whether what travels goes from memory to memory, and not by way of the host's.
    virtual bool direct() const = 0;
    /// Sums over ranks, in place, device memory. What the device was asked for before is done first.
    virtual void begin_all_reduce_sum(std::span<double> values) = 0;
    /// The same at rank `root` alone; what it leaves in the others' values is of no use.
    virtual void begin_reduce_sum(std::span<double> values, int root) = 0;
    /// Every rank's bytes, end to end in rank order, at every rank: device memory, not overlapping; between devices
    /// `mine` may be its own place in `all`.
    /// @param sizes bytes of each rank; they may differ, and may be 0
    virtual void begin_all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                                  std::span<const std::size_t> sizes) = 0;
    /// Returns when everything begun has arrived. What the device is asked for afterwards sees it.
    /// @throws Failure if a rank is lost, or does not come in time
    virtual void finish() = 0;
    /// Gives up what is under way, at this rank: nothing reads or writes its memory any more. The object is of no
    /// further use.
    virtual void abandon() noexcept = 0;
};

/// Collectives of one algorithm's step. If an exception leaves before finish(), what is under way is abandoned: declare
/// it after the memory that it works on.
class Exchange {
  public:
    explicit Exchange(DeviceCollectives& collectives) : collectives_(collectives) {}
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    ~Exchange() {
        if (begun_) collectives_.abandon();
    }
    void all_reduce_sum(std::span<double> values) {
        begun_ = true;
        collectives_.begin_all_reduce_sum(values);
    }
    void reduce_sum(std::span<double> values, int root) {
        begun_ = true;
        collectives_.begin_reduce_sum(values, root);
    }
    void all_gather(std::span<const std::byte> mine, std::span<std::byte> all, std::span<const std::size_t> sizes) {
        begun_ = true;
        collectives_.begin_all_gather(mine, all, sizes);
    }
    void finish() {
        collectives_.finish();
        begun_ = false;
    }

  private:
    DeviceCollectives& collectives_;
    bool begun_ = false;
};

/// The Communicator's own collectives, on memory that the host reads itself or that is copied to it and back, a piece
/// at a time. Nothing travels on its own: begin_… returns when it has arrived.
std::unique_ptr<DeviceCollectives> make_host_collectives(MemoryOperations& memory, Communicator& comm);

}  // namespace fairgptq
