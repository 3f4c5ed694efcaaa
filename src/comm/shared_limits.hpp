// What ranks may take together of their machine.
#pragma once

#include <vector>

#include "comm/communicator.hpp"
#include "support/machine.hpp"

namespace fairgptq {

struct SharedLimit {
    Limit limit;
    int ranks = 1;  // that share it, this one included
    double share() const { return limit.amount / ranks; }
};

/// A collective. Each of this rank's limits, in their order, with the ranks on this machine that have it too.
std::vector<SharedLimit> shared_limits(const std::vector<Limit>& mine, Communicator& comm);

}  // namespace fairgptq
