// How many threads this process may use.
#pragma once

#include "comm/communicator.hpp"

namespace fairgptq {

/// Sets OpenMP's thread count to this rank's share of the cores it may run on, unless OMP_NUM_THREADS says otherwise:
/// all of them if the launcher bound each rank to cores of its own, an equal part where the ranks of a host share
/// theirs.
/// @returns the count
int use_fair_share_of_cores(Communicator& comm);

}  // namespace fairgptq
