// Collectives by NCCL, from GPU to GPU.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "comm/device_collectives.hpp"
#include "comm/nccl_calls.hpp"

namespace fairgptq {

/// How long a rank waits before it ends the job. A rank that died is not waited for: NCCL reports its lost connection,
/// and the launcher ends the others.
struct NcclDeadlines {
    /// For the slowest rank to come to an exchange: a slow disk is no failure.
    std::chrono::milliseconds peers = std::chrono::minutes(10);
    /// For a transfer once all ranks have come, beyond what its bytes take on a slow network.
    std::chrono::milliseconds transfer = std::chrono::seconds(20);
    double slowest_bytes_per_second = 50e6;
    /// For all ranks to join, which they begin together, and for their first exchange of each kind.
    std::chrono::milliseconds joining = std::chrono::minutes(2);
};

/// A collective: ranks exchange NCCL's id through `comm`, meet, and try out every kind of exchange between them. All
/// arguments but the deadlines must outlive the object.
/// @throws SharedFailure if they do not meet in time, or what comes out of a trial is wrong
std::unique_ptr<DeviceCollectives> make_nccl_collectives(MemoryOperations& memory, Communicator& comm,
                                                         std::unique_ptr<NcclCalls> calls,
                                                         const NcclDeadlines& deadlines = {});

/// The same; where NCCL does not come about, the host's collectives, and a word of why.
std::unique_ptr<DeviceCollectives> make_nccl_or_host_collectives(
    MemoryOperations& memory, Communicator& comm, const std::function<std::unique_ptr<NcclCalls>()>& make_calls,
    const NcclDeadlines& deadlines = {});

}  // namespace fairgptq
