// Tiles are shared out by OpenMP, so OpenBLAS must not start threads of its own inside them.
#include "backend/cpu/backend.hpp"

#include <cblas.h>

namespace fairgptq {

CpuBackend::CpuBackend() {
    openblas_set_num_threads(1);
}

std::string CpuBackend::name() const {
    return "cpu";
}

}  // namespace fairgptq
