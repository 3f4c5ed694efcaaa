#include "support/restart.hpp"

#include <unistd.h>

#include <cstdlib>

namespace fairgptq {

void restart_for_libraries(char** argv, const std::string& blas_core) {
    const bool spins = std::getenv("OMP_WAIT_POLICY") == nullptr && std::getenv("GOMP_SPINCOUNT") == nullptr;
    const bool kernels = !blas_core.empty() && std::getenv("OPENBLAS_CORETYPE") == nullptr;
    if (!spins && !kernels) return;
    if (spins) ::setenv("GOMP_SPINCOUNT", "5000", 0);  // some 10 microseconds
    if (kernels) ::setenv("OPENBLAS_CORETYPE", blas_core.c_str(), 0);
    ::execv("/proc/self/exe", argv);  // returns only if it cannot: then all goes on as it is
}

}  // namespace fairgptq
