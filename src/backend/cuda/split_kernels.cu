#include "backend/cuda/launch.cuh"
#include "backend/cuda/split_kernels.hpp"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int threads = 256;
constexpr int vector = 8;
constexpr int parts = 3;

struct alignas(16) Eight {
    __nv_bfloat16 values[vector];
};

/// A thread has eight neighbours of a row.
template <SplitParts where>
__global__ void split(const __grid_constant__ Plain<const float> from, Eight* to) {
    constexpr bool down = where == SplitParts::first_down || where == SplitParts::second_down;
    constexpr bool first = where == SplitParts::first_across || where == SplitParts::first_down;
    for (std::int64_t row = blockIdx.y; row < from.rows; row += gridDim.y)
        for (std::int64_t col = global_thread() * vector; col < from.cols; col += all_threads() * vector) {
            const float* source = from.row(row) + col;
            float value[vector];
            if (reinterpret_cast<std::uintptr_t>(source) % sizeof(float4) == 0) {
#pragma unroll
                for (int i = 0; i < vector; i += 4) {
                    const float4 four = *reinterpret_cast<const float4*>(source + i);
                    value[i] = four.x, value[i + 1] = four.y, value[i + 2] = four.z, value[i + 3] = four.w;
                }
            } else {
#pragma unroll
                for (int i = 0; i < vector; ++i)
                    value[i] = source[i];
            }
            Eight part[parts];
#pragma unroll
            for (int i = 0; i < vector; ++i) {
                float left = value[i];
#pragma unroll
                for (int p = 0; p < parts; ++p) {
                    part[p].values[i] = __float2bfloat16_rn(left);
                    left -= __bfloat162float(part[p].values[i]);
                }
            }
#pragma unroll
            for (int product = 0; product < split_products; ++product) {
                const std::int64_t place = down ? (product * from.rows + row) * from.cols + col
                                                : (row * split_products + product) * from.cols + col;
                to[place / vector] = part[split_part(product, first)];
            }
        }
}

}  // namespace

cudaError_t launch_split(Plain<const float> from, SplitParts where, void* to, cudaStream_t stream) {
    if (from.rows == 0 || from.cols == 0) return cudaSuccess;
    const Launch how{dim3(blocks_for(from.cols, threads * vector), blocks_for(from.rows, 1)), threads, 0, stream};
    auto* pieces = static_cast<Eight*>(to);
    switch (where) {
        case SplitParts::first_across:
            return launch(how, split<SplitParts::first_across>, from, pieces);
        case SplitParts::first_down:
            return launch(how, split<SplitParts::first_down>, from, pieces);
        case SplitParts::second_across:
            return launch(how, split<SplitParts::second_across>, from, pieces);
        case SplitParts::second_down:
            break;
    }
    return launch(how, split<SplitParts::second_down>, from, pieces);
}

}  // namespace fairgptq::cuda
