// What kernels and the host code that launches them share: nvcc cannot compile the formatting that support/views.hpp
// includes, and the host's compiler does not know __device__.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FAIRGPTQ_PORTABLE __host__ __device__ inline
#else
#define FAIRGPTQ_PORTABLE inline
#endif

namespace fairgptq::cuda {

/// A matrix as kernels take it.
template <class T>
struct Plain {
    T* data = nullptr;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;

    FAIRGPTQ_PORTABLE T* row(std::int64_t index) const { return data + index * stride; }
};

FAIRGPTQ_PORTABLE std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
    return (value + divisor - 1) / divisor;
}
FAIRGPTQ_PORTABLE std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

}  // namespace fairgptq::cuda
