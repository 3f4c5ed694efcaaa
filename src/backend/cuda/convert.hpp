// Element types, converted on the GPU.
//
// Headers that .cu files include hold no formatting: nvcc cannot compile fmt's compile-time checks. Kernels and their
// launches are in .cu files and return CUDA's status; host code is in .cpp files and turns that into sentences.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "support/dtype.hpp"

namespace fairgptq::cuda {

/// to[r, c] = from[r, c], rounded to nearest where `to` is narrower; both on the device, on `stream`.
/// @param from [rows, cols] without gaps; @param to rows `stride` elements apart
cudaError_t convert(const void* from, DType from_type, void* to, DType to_type, std::int64_t rows, std::int64_t cols,
                    std::int64_t stride, cudaStream_t stream);

}  // namespace fairgptq::cuda
