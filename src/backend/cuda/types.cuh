// Element types that are known at run time only, in kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backend/cuda/portable.hpp"
#include "support/dtype.hpp"

namespace fairgptq::cuda {

__device__ inline float to_float(float value) {
    return value;
}
__device__ inline float to_float(__half value) {
    return __half2float(value);
}
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ inline void store(float value, float* place) {
    *place = value;
}
__device__ inline void store(float value, __half* place) {
    *place = __float2half_rn(value);
}
__device__ inline void store(float value, __nv_bfloat16* place) {
    *place = __float2bfloat16_rn(value);
}

/// launch(T{}) with the type's T; returns the launch's status.
template <class Launch>
cudaError_t with_type(DType type, const Launch& launch) {
    switch (type) {
        case DType::float16:
            return launch(__half{});
        case DType::bfloat16:
            return launch(__nv_bfloat16{});
        case DType::float32:
            break;
    }
    return launch(float{});
}

/// Blocks of `threads` for `elements`, at most as many as a grid's sides all hold: kernels step over the rest.
inline unsigned blocks_for(std::int64_t elements, int threads) {
    return static_cast<unsigned>(smaller(ceil_div(elements, threads), 65535));
}

__device__ inline std::int64_t global_thread() {
    return blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
}
__device__ inline std::int64_t all_threads() {
    return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

/// A sum or a largest value over a block of 256 threads, in one order always; every thread gets it.
constexpr int reducing_threads = 256;
template <class T, class Combine>
__device__ T reduce_block(T value, T* shared, const Combine& combine) {
    __syncthreads();  // the last reduction's readers
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = reducing_threads / 2; half > 0; half /= 2) {
        if (static_cast<int>(threadIdx.x) < half)
            shared[threadIdx.x] = combine(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}
template <class T>
__device__ T sum_block(T value, T* shared) {
    return reduce_block(value, shared, [](T a, T b) { return a + b; });
}

}  // namespace fairgptq::cuda
