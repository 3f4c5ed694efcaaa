// How many threads this process may use.
#pragma once

#include <string>

#include "comm/communicator.hpp"

namespace fairgptq {

/// Sets OpenMP's thread count to this rank's share of the cores it may run on, unless OMP_NUM_THREADS says otherwise:
/// all of them if the launcher bound each rank to cores of its own, an equal part where the ranks of a host share
/// theirs, and no more than a cgroup's quota of processor time (a container's) allows: threads beyond it would wait for
/// each other while the kernel holds some of them back.
/// @returns the count
/// @throws InvalidInput if OMP_NUM_THREADS asks for thousands
int use_fair_share_of_cores(Communicator& comm);

/// Starts the program anew, once, with what libraries read from their environment before main. Call it first.
/// OpenMP: a short time for which its threads spin while they wait (then they sleep). GNU's spin for milliseconds,
/// which on a core that others use, too, makes work of many short steps up to 80 times as slow. Not where
/// OMP_WAIT_POLICY or GOMP_SPINCOUNT is set. OpenBLAS: its kernels. Not where OPENBLAS_CORETYPE is set.
/// @param blas_core better_blas_core()
void restart_for_libraries(char** argv, const std::string& blas_core);

}  // namespace fairgptq
