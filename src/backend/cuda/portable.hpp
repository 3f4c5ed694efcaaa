// What lets a header be compiled by nvcc for the GPU and by the host's compiler for its tests: kernels whose indexing
// and arithmetic live in such headers are tested on machines without a GPU.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define FAIRGPTQ_PORTABLE __host__ __device__ inline
#else
#define FAIRGPTQ_PORTABLE inline
#endif

// Unrolling is nvcc's business; the host's compiler does not know the pragma.
#ifdef __CUDA_ARCH__
#define FAIRGPTQ_UNROLL _Pragma("unroll")
#else
#define FAIRGPTQ_UNROLL
#endif

namespace fairgptq::cuda {

/// A matrix as kernels take it: support/views.hpp includes formatting, which nvcc cannot compile.
template <class T>
struct Plain {
    T* data = nullptr;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;

    FAIRGPTQ_PORTABLE T* row(std::int64_t index) const { return data + index * stride; }
};

/// a · b + c, rounded once.
FAIRGPTQ_PORTABLE float fused(float a, float b, float c) {
#ifdef __CUDA_ARCH__
    return fmaf(a, b, c);
#else
    return std::fma(a, b, c);
#endif
}

FAIRGPTQ_PORTABLE std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
    return (value + divisor - 1) / divisor;
}
FAIRGPTQ_PORTABLE std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

}  // namespace fairgptq::cuda
