// A row comes from memory once: the rows that are convolved with it follow it in the same thread, which finds it in its
// first cache. The thread's weights would cost more than its rows if it did not keep them.
#include "backend/cuda/convolution_kernels.hpp"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int convolution_block = 128;
constexpr int tile_rows = 32;  // that a thread goes through, one after the other
constexpr int kept_width = 4;  // of weights that a thread keeps: a chunk a channel

/// A thread has a chunk of channels in a tile of rows.
/// @tparam Kept whether the width is kept_width; else weights are read as they are needed
template <class T, bool Whole, bool Kept>
__global__ void convolution(PlainTensor inputs, const float* weights, std::int64_t width, const std::int32_t* previous,
                            bool silu, PlainTensor output) {
    constexpr int elements = chunk_elements<T>;
    const std::int64_t cols = inputs.cols;
    for (std::int64_t col = global_thread() * elements; col < cols; col += all_threads() * elements) {
        const int count = count_in_chunk<Whole, T>(col, cols);
        const float* of_chunk = weights + col * width;
        Chunk kept[Kept ? elements : 1];
        if constexpr (Kept) {
#pragma unroll
            for (int i = 0; i < elements; ++i)
                kept[i] = load_chunk<Whole>(of_chunk + i * kept_width, i < count ? kept_width : 0);
        }
        for (std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * tile_rows; begin < inputs.rows;
             begin += static_cast<std::int64_t>(gridDim.y) * tile_rows) {
            const std::int64_t end = smaller(begin + tile_rows, inputs.rows);
            Chunk next = load_chunk<Whole>(row_of<T>(inputs, begin) + col, count);
            for (std::int64_t row = begin; row < end; ++row) {
                Chunk chunk = next;
                if (row + 1 < end) next = load_chunk<Whole>(row_of<T>(inputs, row + 1) + col, count);
                float sums[elements] = {};
                std::int64_t at = row;
                const auto add = [&](const auto& weight) {
#pragma unroll
                    for (int i = 0; i < elements; ++i)
                        if (Whole || i < count) sums[i] = fmaf(weight(i), element<T>(chunk, i), sums[i]);
                    at = previous[at];
                };
                if constexpr (Kept) {
#pragma unroll
                    for (int step = 0; step < kept_width; ++step) {
                        if (at < 0) break;
                        if (step > 0) chunk = load_chunk<Whole>(row_of<T>(inputs, at) + col, count);
                        add([&](int i) { return element<float>(kept[i], kept_width - 1 - step); });
                    }
                } else {
                    for (std::int64_t step = 0; step < width && at >= 0; ++step) {
                        if (step > 0) chunk = load_chunk<Whole>(row_of<T>(inputs, at) + col, count);
                        add([&](int i) { return of_chunk[i * width + width - 1 - step]; });
                    }
                }
#pragma unroll
                for (int i = 0; i < elements; ++i)
                    set_element<T>(silu ? sums[i] / (1.0F + expf(-sums[i])) : sums[i], i, chunk);
                store_chunk<Whole>(chunk, row_to_write<T>(output, row) + col, count);
            }
        }
    }
}

}  // namespace

cudaError_t launch_convolution(const PlainTensor& inputs, const float* weights, std::int64_t width,
                               const std::int32_t* previous, bool silu, const PlainTensor& output,
                               cudaStream_t stream) {
    if (inputs.rows == 0 || inputs.cols == 0) return cudaSuccess;
    const bool whole = in_whole_chunks(inputs) && in_whole_chunks(output) && at_16_bytes(weights);
    return with_type(inputs.type, [&](auto element) {
        using T = decltype(element);
        const std::int64_t chunks = ceil_div(inputs.cols, chunk_elements<T>);
        const dim3 grid(blocks_for(chunks, convolution_block), blocks_for(inputs.rows, tile_rows));
        return with_known(whole, [&](auto known) {
            constexpr bool is_whole = decltype(known)::value;
            return launch({grid, convolution_block, 0, stream},
                          width == kept_width ? convolution<T, is_whole, true> : convolution<T, is_whole, false>,
                          inputs, weights, width, previous, silu, output);
        });
    });
}

}  // namespace fairgptq::cuda
