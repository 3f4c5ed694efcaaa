// What libraries read from their environment before main.
#pragma once

#include <string>

namespace fairgptq {

/// Starts the program anew, once, with what libraries read from their environment before main. Call it first.
/// OpenMP: a short time for which its threads spin while they wait (then they sleep). GNU's spin for milliseconds,
/// which on a core that others use, too, makes work of many short steps up to 80 times as slow. Not where
/// OMP_WAIT_POLICY or GOMP_SPINCOUNT is set. OpenBLAS: its kernels. Not where OPENBLAS_CORETYPE is set.
/// @param blas_core better_blas_core()
void restart_for_libraries(char** argv, const std::string& blas_core);

}  // namespace fairgptq
