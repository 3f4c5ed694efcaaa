// The few calls that nccl_collectives.cpp makes of NCCL and of CUDA's streams. They have a header of their own so that
// a test can stand in for the GPU: whatever decides (what waits for what, for how long, what a failure says) is on the
// other side of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "backend/backend.hpp"

namespace fairgptq {

/// One rank's NCCL communicator, in NCCL's non-blocking mode, and the stream that its transfers run on. A call returns
/// at once; state() says when the next one may follow.
class NcclCalls {
  public:
    using Id = std::array<std::byte, 128>;  // ncclUniqueId
    enum class State : std::uint8_t { ready, busy, failed };

    virtual ~NcclCalls() = default;
    /// "2.28.9"
    virtual std::string version() const = 0;
    /// Bytes with which each call is tried out before there is work to lose: so many that the ways are those of a run.
    virtual std::size_t trial_bytes() const = 0;
    /// The unique id that rank 0 gives to the others.
    virtual Id make_id() = 0;
    /// Begins to join the ranks that have this id.
    virtual void join(const Id& id, int rank, int ranks) = 0;

    /// What the communicator says of the last call, and of every transfer so far.
    virtual State state() = 0;
    /// Why the state is `failed`.
    virtual std::string problem() = 0;

    /// Transfers asked for from here on wait for what the device was asked for before.
    virtual void follow_device() = 0;
    /// Sums over ranks, in place.
    virtual void all_reduce_sum(std::span<double> values) = 0;
    /// Sums at one rank, in place; the others' values are only read.
    virtual void reduce_sum(std::span<double> values, int root) = 0;
    /// Every rank's bytes, end to end in rank order; device memory.
    virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                            std::span<const std::size_t> sizes) = 0;
    /// Marks the end of what was asked for: finished() is about that.
    virtual void mark_end() = 0;

    /// Whether the device has come to the last follow_device(), so that only the transfers are left.
    virtual bool device_has_come() = 0;
    /// Whether the transfers up to the last mark_end() are done.
    virtual bool finished() = 0;

    /// Begins to leave the other ranks in good order.
    virtual void leave() = 0;
    /// Ends every transfer at this rank, at once; returns within seconds, whatever the other ranks do.
    virtual void abort() noexcept = 0;
};

/// Whether this build has NCCL.
bool built_with_nccl();

/// @throws Failure if this build has no NCCL, or the backend is no GPU
std::unique_ptr<NcclCalls> make_nccl_calls(Backend& backend);

}  // namespace fairgptq
