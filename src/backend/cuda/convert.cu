#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "backend/cuda/convert.hpp"

namespace fairgptq::cuda {
namespace {

__device__ float to_float(float value) {
    return value;
}
__device__ float to_float(__half value) {
    return __half2float(value);
}
__device__ float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ void store(float value, float* place) {
    *place = value;
}
__device__ void store(float value, __half* place) {
    *place = __float2half_rn(value);
}
__device__ void store(float value, __nv_bfloat16* place) {
    *place = __float2bfloat16_rn(value);
}

/// Any grid covers any size.
template <class From, class To>
__global__ void convert_elements(const From* from, To* to, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < rows * cols; i += step)
        store(to_float(from[i]), to + i / cols * stride + i % cols);
}

template <class From, class To>
void launch(const void* from, void* to, std::int64_t rows, std::int64_t cols, std::int64_t stride,
            cudaStream_t stream) {
    constexpr int threads = 256;
    const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((rows * cols + threads - 1) / threads, 1 << 16));
    convert_elements<<<blocks, threads, 0, stream>>>(static_cast<const From*>(from), static_cast<To*>(to), rows, cols,
                                                     stride);
}

template <class From>
void launch_to(DType type, const void* from, void* to, std::int64_t rows, std::int64_t cols, std::int64_t stride,
               cudaStream_t stream) {
    switch (type) {
        case DType::float32:
            launch<From, float>(from, to, rows, cols, stride, stream);
            break;
        case DType::float16:
            launch<From, __half>(from, to, rows, cols, stride, stream);
            break;
        case DType::bfloat16:
            launch<From, __nv_bfloat16>(from, to, rows, cols, stride, stream);
            break;
    }
}

}  // namespace

cudaError_t convert(const void* from, DType from_type, void* to, DType to_type, std::int64_t rows, std::int64_t cols,
                    std::int64_t stride, cudaStream_t stream) {
    if (rows == 0 || cols == 0) return cudaSuccess;
    switch (from_type) {
        case DType::float32:
            launch_to<float>(to_type, from, to, rows, cols, stride, stream);
            break;
        case DType::float16:
            launch_to<__half>(to_type, from, to, rows, cols, stride, stream);
            break;
        case DType::bfloat16:
            launch_to<__nv_bfloat16>(to_type, from, to, rows, cols, stride, stream);
            break;
    }
    return cudaGetLastError();
}

}  // namespace fairgptq::cuda
