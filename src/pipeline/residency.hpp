// What of a run lies in device memory, what waits in the host's, and for how many experts at once there is room.
#pragma once

#include <cstdint>
#include <limits>

#include "model/weights.hpp"

namespace fairgptq {

/// Decided by plan_memory. It changes where things wait and who solves them, and not a byte of what comes out.
struct Residency {
    /// A rank's first chunks, up to so many tokens, keep their hidden states and stage inputs on the device; the
    /// others' are in host memory, and fetched for each step while the chunk before is computed.
    std::int64_t tokens = std::numeric_limits<std::int64_t>::max();
    ReadAhead weights = ReadAhead::to_device;

    /// experts_at_once of the pass (pipeline/solve_shares.hpp): the same at every rank.
    std::int64_t experts_at_once = 1;
};

}  // namespace fairgptq
