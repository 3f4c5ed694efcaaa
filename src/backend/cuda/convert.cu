#include "backend/cuda/convert.hpp"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

template <class From, class To>
__global__ void convert_elements(const From* from, To* to, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
    for (std::int64_t i = global_thread(); i < rows * cols; i += all_threads())
        store(to_float(from[i]), to + i / cols * stride + i % cols);
}

}  // namespace

cudaError_t convert(const void* from, DType from_type, void* to, DType to_type, std::int64_t rows, std::int64_t cols,
                    std::int64_t stride, cudaStream_t stream) {
    if (rows == 0 || cols == 0) return cudaSuccess;
    constexpr int threads = 256;
    const unsigned blocks = blocks_for(rows * cols, threads);
    return with_type(from_type, [&](auto from_element) {
        return with_type(to_type, [&](auto to_element) {
            using From = decltype(from_element);
            using To = decltype(to_element);
            return launch({blocks, threads, 0, stream}, convert_elements<From, To>, static_cast<const From*>(from),
                          static_cast<To*>(to), rows, cols, stride);
        });
    });
}

}  // namespace fairgptq::cuda
