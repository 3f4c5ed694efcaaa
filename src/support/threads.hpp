// How many threads this process may use.
#pragma once

#include "comm/communicator.hpp"

namespace fairgptq {

/// Sets OpenMP's thread count to this rank's share of the cores it may run on, unless OMP_NUM_THREADS says otherwise:
/// all of them if the launcher bound each rank to cores of its own, an equal part where the ranks of a host share
/// theirs, and no more than a cgroup's quota of processor time (a container's) allows: threads beyond it would wait for
/// each other while the kernel holds some of them back.
/// @returns the count
/// @throws InvalidInput if OMP_NUM_THREADS asks for thousands
int use_fair_share_of_cores(Communicator& comm);

/// Starts the program anew, once, with a short time for which OpenMP's threads spin while they wait (then they sleep).
/// GNU's spin for milliseconds, which on a core that others use, too, makes work of many short steps up to 80 times as
/// slow; and it reads its environment before main. Does nothing where OMP_WAIT_POLICY or GOMP_SPINCOUNT is set. Call it
/// first.
void restart_with_short_spins(char** argv);

}  // namespace fairgptq
