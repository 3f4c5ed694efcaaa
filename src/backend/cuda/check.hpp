// Every CUDA call is checked; a failure names the call.
#pragma once

#include <cuda_runtime_api.h>

#include "support/error.hpp"

namespace fairgptq::cuda {

inline void check(cudaError_t status, const char* call) {
    if (status != cudaSuccess) throw Failure("{} failed: {}", call, cudaGetErrorString(status));
}

/// GPUs that this process may use; 0 where there is no driver.
inline int device_count() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

}  // namespace fairgptq::cuda
