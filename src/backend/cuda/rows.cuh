// Rows in chunks of 16 bytes, the most that a thread reads or writes at once, and what a row's threads make together.
// Where a row begins does not decide which thread has which elements, nor in what order they are summed: only whether
// a chunk travels whole or element by element.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "backend/cuda/forward_kernels.hpp"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {

struct alignas(16) Chunk {
    std::uint32_t words[4] = {0, 0, 0, 0};
};
template <class T>
constexpr int chunk_elements = static_cast<int>(sizeof(Chunk) / sizeof(T));

template <class T>
__device__ const T* row_of(const PlainTensor& tensor, std::int64_t row) {
    return static_cast<const T*>(tensor.data) + row * tensor.stride;
}
template <class T>
__device__ T* row_to_write(const PlainTensor& tensor, std::int64_t row) {
    return static_cast<T*>(tensor.data) + row * tensor.stride;
}

/// The elements from `place` on.
/// @tparam Whole all of a chunk's elements are there, and `place` is a multiple of 16 bytes; else the first `count`
/// are, and the others become 0
template <bool Whole, class T>
__device__ Chunk load_chunk(const T* place, int count) {
    if constexpr (Whole) {
        return *reinterpret_cast<const Chunk*>(place);
    } else {
        Chunk chunk;
#pragma unroll
        for (int i = 0; i < chunk_elements<T>; ++i)
            if (i < count) {
                const T value = place[i];
                memcpy(reinterpret_cast<unsigned char*>(chunk.words) + i * sizeof(T), &value, sizeof(T));
            }
        return chunk;
    }
}

template <bool Whole, class T>
__device__ void store_chunk(const Chunk& chunk, T* place, int count) {
    if constexpr (Whole) {
        *reinterpret_cast<Chunk*>(place) = chunk;
    } else {
#pragma unroll
        for (int i = 0; i < chunk_elements<T>; ++i)
            if (i < count) {
                T value;
                memcpy(&value, reinterpret_cast<const unsigned char*>(chunk.words) + i * sizeof(T), sizeof(T));
                place[i] = value;
            }
    }
}

/// How many of a chunk's elements from column `col` on a row has.
template <bool Whole, class T>
__device__ int count_in_chunk(std::int64_t col, std::int64_t cols) {
    return Whole ? chunk_elements<T> : static_cast<int>(smaller(chunk_elements<T>, cols - col));
}

template <class T>
__device__ float element(const Chunk& chunk, int index) {
    T value;
    memcpy(&value, reinterpret_cast<const unsigned char*>(chunk.words) + index * sizeof(T), sizeof(T));
    return to_float(value);
}
template <class T>
__device__ void set_element(float value, int index, Chunk& chunk) {
    T stored;
    store(value, &stored);
    memcpy(reinterpret_cast<unsigned char*>(chunk.words) + index * sizeof(T), &stored, sizeof(T));
}

/// As many float32 as a chunk of T has elements.
template <bool Whole, class T>
struct Floats {
    Chunk chunks[chunk_elements<T> / 4];
    __device__ Floats(const float* place, int count) {
#pragma unroll
        for (int i = 0; i < chunk_elements<T> / 4; ++i)
            chunks[i] = load_chunk<Whole>(place + 4 * i, count - 4 * i);
    }
    __device__ float operator[](int index) const {
        return element<float>(chunks[index / 4], index % 4);
    }
};

inline bool at_16_bytes(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(Chunk) == 0;
}
/// Whether each of a tensor's rows begins at a multiple of 16 bytes and ends at one. (One without data does.)
inline bool in_whole_chunks(const PlainTensor& tensor) {
    const std::int64_t size = tensor.type == DType::float32 ? 4 : 2;
    return at_16_bytes(tensor.data) && (tensor.rows <= 1 || tensor.stride * size % 16 == 0) &&
           tensor.cols * size % 16 == 0;
}

/// A value that the compiler is to know.
template <bool Value>
struct Known {
    static constexpr bool value = Value;
};
template <class Launch>
cudaError_t with_known(bool value, const Launch& launch) {
    return value ? launch(Known<true>{}) : launch(Known<false>{});
}

/// Work on each chunk of a matrix by itself. A power of two of threads has a row: no division finds its place.
template <class T, bool Whole, class Work>
__global__ void over_chunks(std::int64_t rows, std::int64_t cols, int log2_lanes, Work work) {
    constexpr int elements = chunk_elements<T>;
    const auto thread = static_cast<int>(threadIdx.x);
    const int rows_at_once = static_cast<int>(blockDim.x) >> log2_lanes;
    const std::int64_t first =
        ((static_cast<std::int64_t>(blockIdx.x) << log2_lanes) + (thread & ((1 << log2_lanes) - 1))) * elements;
    const std::int64_t step = (static_cast<std::int64_t>(gridDim.x) << log2_lanes) * elements;
    for (std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * rows_at_once + (thread >> log2_lanes); row < rows;
         row += static_cast<std::int64_t>(gridDim.y) * rows_at_once)
        for (std::int64_t col = first; col < cols; col += step)
            work.template at<Whole>(row, col, count_in_chunk<Whole, T>(col, cols));
}

/// @param whole whether all of the work's tensors are in_whole_chunks
template <class T, class Work>
cudaError_t launch_over_chunks(std::int64_t rows, std::int64_t cols, bool whole, const Work& work,
                               cudaStream_t stream) {
    constexpr int log2_threads = 8;
    const std::int64_t chunks = ceil_div(cols, chunk_elements<T>);
    int log2_lanes = 0;
    while (log2_lanes < log2_threads && (std::int64_t{1} << log2_lanes) < chunks)
        ++log2_lanes;
    const dim3 grid(blocks_for(chunks, 1 << log2_lanes), blocks_for(rows, 1 << (log2_threads - log2_lanes)));
    return with_known(whole, [&](auto known) {
        return launch({grid, 1 << log2_threads, 0, stream}, over_chunks<T, decltype(known)::value, Work>, rows, cols,
                      log2_lanes, work);
    });
}

/// The sum over a row's threads: a warp's or a block's. Every one of them gets the same bits.
/// @param shared [threads / 32], of a block's row
template <int Threads>
__device__ float sum_over_row(float value, float* shared) {
    constexpr int lanes = 32;
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffU, value, distance);
    if constexpr (Threads > lanes) {
        __syncthreads();  // the last sum's readers
        if (threadIdx.x % lanes == 0) shared[threadIdx.x / lanes] = value;
        __syncthreads();
        value = shared[0];
#pragma unroll
        for (int warp = 1; warp < Threads / lanes; ++warp)
            value += shared[warp];
    }
    return value;
}

}  // namespace fairgptq::cuda
