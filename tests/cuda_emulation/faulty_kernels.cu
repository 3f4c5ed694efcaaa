// Kernels for emulation_test.cpp, right ones and each with one fault that a GPU would not report.
#include <cuda_pipeline.h>

#include "backend/cuda/launch.cuh"
#include "backend/cuda/on_chip.cuh"
#include "faulty_kernels.hpp"

namespace fairgptq::testing {
namespace {

__global__ void reverse_on_chip(const float* from, float* to, bool with_barrier) {
    __shared__ float values[64];
    values[threadIdx.x] = from[threadIdx.x];
    if (with_barrier) __syncthreads();
    to[threadIdx.x] = values[63 - threadIdx.x];
}

__global__ void sum_of_warps(const float* from, float* to) {
    float value = from[threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffU, value, distance);
    to[threadIdx.x] = value;
}

__global__ void any_negative(const float* from, int* to) {
    const int any = __syncthreads_or(from[blockIdx.x * blockDim.x + threadIdx.x] < 0 ? 1 : 0);
    if (threadIdx.x == 0) to[blockIdx.x] = any;
}

__global__ void barrier_for_some() {
    if (threadIdx.x < 32) __syncthreads();
}

__global__ void write(float* to, std::int64_t place) {
    to[place] = 1;
}

__global__ void copy_through_chip(const float* from, float* to, bool waits) {
    auto* on_chip = cuda::dynamic_on_chip<float>();
    __pipeline_memcpy_async(on_chip + threadIdx.x, from + threadIdx.x, sizeof(float));
    __pipeline_commit();
    if (waits) __pipeline_wait_prior(0);
    __syncthreads();
    to[threadIdx.x] = on_chip[63 - threadIdx.x];
    __syncthreads();
    if (!waits) __pipeline_wait_prior(0);
}

}  // namespace

cudaError_t launch_reverse_on_chip(const float* from, float* to, bool with_barrier, cudaStream_t stream) {
    return cuda::launch({1, 64, 0, stream}, reverse_on_chip, from, to, with_barrier);
}
cudaError_t launch_sum_of_warps(const float* from, float* to, cudaStream_t stream) {
    return cuda::launch({1, 64, 0, stream}, sum_of_warps, from, to);
}
cudaError_t launch_any_negative(const float* from, int* to, unsigned blocks, cudaStream_t stream) {
    return cuda::launch({blocks, 64, 0, stream}, any_negative, from, to);
}
cudaError_t launch_barrier_for_some(cudaStream_t stream) {
    return cuda::launch({1, 64, 0, stream}, barrier_for_some);
}
cudaError_t launch_write(float* to, std::int64_t place, cudaStream_t stream) {
    return cuda::launch({1, 1, 0, stream}, write, to, place);
}
cudaError_t launch_copy_through_chip(const float* from, float* to, bool waits, cudaStream_t stream) {
    return cuda::launch({1, 64, 64 * sizeof(float), stream}, copy_through_chip, from, to, waits);
}
cudaError_t launch_nothing(dim3 grid, dim3 block, std::size_t on_chip, cudaStream_t stream) {
    return cuda::launch({grid, block, on_chip, stream}, write, static_cast<float*>(nullptr), std::int64_t{0});
}

}  // namespace fairgptq::testing
