// cuSOLVER's handle, with one owner.
#pragma once

#include <cusolverDn.h>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "support/say.hpp"

namespace fairgptq {

struct CudaBackend::Solver {
    cusolverDnHandle_t handle = nullptr;
    cusolverDnParams_t params = nullptr;
    std::vector<char> host_workspace;

    explicit Solver(cuda::Memory& memory) {
        memory.use();
        cuda::check(cusolverDnCreate(&handle), "cusolverDnCreate");
        cuda::check(cusolverDnSetStream(handle, memory.stream()), "cusolverDnSetStream");
        if (cusolverDnSetDeterministicMode(handle, CUSOLVER_DETERMINISTIC_RESULTS) != CUSOLVER_STATUS_SUCCESS)
            warn("cuSOLVER does not promise the same bytes twice: a run done again may differ by rounding");
        cuda::check(cusolverDnCreateParams(&params), "cusolverDnCreateParams");
    }
    ~Solver() {
        if (params != nullptr) cusolverDnDestroyParams(params);
        if (handle != nullptr) cusolverDnDestroy(handle);
    }
    Solver(const Solver&) = delete;
    Solver& operator=(const Solver&) = delete;
};

}  // namespace fairgptq
