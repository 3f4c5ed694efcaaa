// Tiles are shared out by OpenMP, so OpenBLAS must not start threads of its own inside them.
#include "backend/cpu/backend.hpp"

#include <cblas.h>
#include <omp.h>

namespace fairgptq {

CpuBackend::CpuBackend() {
    // OpenBLAS built on OpenMP sets OpenMP's own thread count along with its own: put that back.
    const int threads = omp_get_max_threads();
    openblas_set_num_threads(1);
    omp_set_num_threads(threads);
}

std::string CpuBackend::name() const {
    return "cpu";
}

}  // namespace fairgptq
