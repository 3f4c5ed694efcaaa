// cuSOLVER as plain loops. Matrices are column-major, as its are.
#include <cmath>
#include <cstring>
#include <mutex>

#include "cusolverDn.h"
#include "emulation.hpp"

struct cusolverDnContext {
    cudaStream_t stream = nullptr;
};
struct cusolverDnParams {};

using namespace emulation;

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
    *handle = new cusolverDnContext;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
    delete handle;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetDeterministicMode(cusolverDnHandle_t, cusolverDeterministicMode_t) {
    return equipment().deterministic_solver ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_NOT_SUPPORTED;
}
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* params) {
    *params = new cusolverDnParams;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t params) {
    delete params;
    return CUSOLVER_STATUS_SUCCESS;
}
namespace {
constexpr std::size_t potrf_host_bytes = 64;
/// A = VᵀV, upper triangle. @returns 0, or the number of the first pivot that is not positive
int factor_upper(float* a, std::int64_t n, std::int64_t stride) {
    for (std::int64_t col = 0; col < n; ++col)
        for (std::int64_t row = 0; row <= col; ++row) {
            constexpr std::int64_t lanes = 16;
            float sums[lanes] = {};
            const float* left = a + row * stride;
            const float* right = a + col * stride;
            for (std::int64_t k = 0; k < row; ++k)
                sums[k % lanes] += left[k] * right[k];
            float value = right[row];
            for (const float sum : sums)
                value -= sum;
            if (row == col && !(value > 0)) return static_cast<int>(col) + 1;
            a[col * stride + row] = row == col ? std::sqrt(value) : value / left[row];
        }
    return 0;
}
std::size_t potrf_device_bytes(std::int64_t n) {
    return static_cast<std::size_t>(n) * 128;
}
}  // namespace
cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, cublasFillMode_t, std::int64_t n,
                                             cudaDataType type, const void*, std::int64_t lda, cudaDataType compute,
                                             std::size_t* device_bytes, std::size_t* host_bytes) {
    if (type != CUDA_R_32F || compute != CUDA_R_32F || n < 1 || lda < n) return CUSOLVER_STATUS_INVALID_VALUE;
    *device_bytes = potrf_device_bytes(n);
    *host_bytes = potrf_host_bytes;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t, cublasFillMode_t fill, std::int64_t n,
                                  cudaDataType type, void* a, std::int64_t lda, cudaDataType compute,
                                  void* device_buffer, std::size_t device_bytes, void* host_buffer,
                                  std::size_t host_bytes, int* info) {
    const std::lock_guard lock(runtime_lock());
    if (!is_this_threads(handle->stream)) return CUSOLVER_STATUS_EXECUTION_FAILED;
    if (type != CUDA_R_32F || compute != CUDA_R_32F || fill != CUBLAS_FILL_MODE_UPPER || n < 1 || lda < n ||
        device_bytes < potrf_device_bytes(n) || host_bytes < potrf_host_bytes || host_buffer == nullptr ||
        !is_device_pointer(a) || !is_device_pointer(info))
        return CUSOLVER_STATUS_INVALID_VALUE;
    enqueue(handle->stream, [=] {
        const DeviceAccess access;
        require_inside(a, static_cast<std::size_t>((n - 1) * lda + n) * sizeof(float), "cusolverDnXpotrf's matrix");
        require_inside(device_buffer, device_bytes, "cusolverDnXpotrf's workspace");
        require_inside(info, sizeof(int), "cusolverDnXpotrf's info");
        std::memset(device_buffer, 0xff, device_bytes);
        std::memset(host_buffer, 0xff, host_bytes);
        *info = factor_upper(static_cast<float*>(a), n, lda);
    });
    return CUSOLVER_STATUS_SUCCESS;
}
