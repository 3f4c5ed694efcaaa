// Ranks over MPI, on host memory.
#pragma once

#include <memory>

#include "comm/communicator.hpp"

namespace fairgptq {

/// Initialises MPI; finalizes it when the object goes, unless an exception is in flight (a rank that left early would
/// otherwise wait in MPI_Finalize for ranks that wait in a collective).
std::unique_ptr<Communicator> make_mpi(int* argc, char*** argv);

}  // namespace fairgptq
