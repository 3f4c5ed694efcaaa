// Every call of CUDA's libraries is checked; a failure names the call.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include "support/error.hpp"

namespace fairgptq::cuda {

inline void check(cudaError_t status, const char* call) {
    if (status != cudaSuccess)
        throw Failure("{} failed: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}
inline void check(cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS) throw Failure("{} failed: {}", call, cublasGetStatusString(status));
}
inline void check(cusolverStatus_t status, const char* call) {
    if (status != CUSOLVER_STATUS_SUCCESS)
        throw Failure("{} failed with cuSOLVER's status {}", call, static_cast<int>(status));
}

/// GPUs that this process may use; 0 where there is no driver.
inline int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();  // not to be found by the next call's check
    return 0;
}
/// Why there are none: "no CUDA-capable device is detected".
inline const char* why_no_device() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    return cudaGetErrorString(status);
}

/// Whether a driver is installed, and does not let its GPUs be used: it is older than this program's CUDA, say.
inline bool driver_refuses() {
    int version = 0, count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    const bool installed = cudaDriverGetVersion(&version) == cudaSuccess && version > 0;
    cudaGetLastError();
    return installed && status != cudaSuccess && status != cudaErrorNoDevice;
}

}  // namespace fairgptq::cuda
