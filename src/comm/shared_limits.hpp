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

/// A collective. How many threads this rank may keep busy: its share of the cores that it may run on, all of them where
/// the launcher gave each rank cores of its own, an equal part where ranks of a machine have the same ones (all, or
/// those of a socket), and no more than a cgroup's quota of processor time (a container's) allows: threads beyond it
/// would wait for each other while the kernel holds some of them back.
int share_of_cores(Communicator& comm);

/// A collective. Sets OpenMP's thread count to that, unless OMP_NUM_THREADS says otherwise.
/// @returns the count
/// @throws InvalidInput if OMP_NUM_THREADS asks for thousands
int use_share_of_cores(Communicator& comm);

}  // namespace fairgptq
