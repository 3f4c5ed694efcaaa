#include "backend/cuda/launch.cuh"
#include "backend/cuda/split_kernels.hpp"
#include "backend/cuda/types.cuh"

namespace fairgptq::cuda {
namespace {

constexpr int threads = 256;
constexpr int vector = 4;

/// Half to even; what would be beyond the largest becomes infinity, as an overflow does.
__device__ float rounded_to_tf32(float value) {
    constexpr int dropped = 13;
    const auto bits = static_cast<std::uint32_t>(__float_as_int(value));
    const std::uint32_t half = (1U << (dropped - 1)) - 1 + (bits >> dropped & 1U);
    return __int_as_float(static_cast<int>((bits + half) >> dropped << dropped));
}

/// A thread has four neighbours of a row.
template <SplitParts parts>
__global__ void split(const __grid_constant__ Plain<const float> from, const __grid_constant__ Plain<float> to) {
    constexpr bool down = parts == SplitParts::high_low_high_down;
    constexpr int low_part = parts == SplitParts::high_high_low_across ? 2 : 1;
    for (std::int64_t row = blockIdx.y; row < from.rows; row += gridDim.y)
        for (std::int64_t col = global_thread() * vector; col < from.cols; col += all_threads() * vector) {
            const float* source = from.row(row) + col;
            float4 value;
            if (reinterpret_cast<std::uintptr_t>(source) % sizeof(float4) == 0)
                value = *reinterpret_cast<const float4*>(source);
            else
                value = float4{source[0], source[1], source[2], source[3]};
            const float4 high{rounded_to_tf32(value.x), rounded_to_tf32(value.y), rounded_to_tf32(value.z),
                              rounded_to_tf32(value.w)};
            const float4 low{rounded_to_tf32(value.x - high.x), rounded_to_tf32(value.y - high.y),
                             rounded_to_tf32(value.z - high.z), rounded_to_tf32(value.w - high.w)};
#pragma unroll
            for (int part = 0; part < 3; ++part) {
                const std::int64_t at =
                    (down ? (part * from.rows + row) * to.stride : row * to.stride + part * from.cols) + col;
                // Counted in fours, or the compiler writes two of the three a float at a time.
                reinterpret_cast<float4*>(to.data)[at / vector] = part == low_part ? low : high;
            }
        }
}

}  // namespace

cudaError_t launch_split(Plain<const float> from, SplitParts parts, Plain<float> to, cudaStream_t stream) {
    if (from.rows == 0 || from.cols == 0) return cudaSuccess;
    const Launch how{dim3(blocks_for(from.cols, threads * vector), blocks_for(from.rows, 1)), threads, 0, stream};
    switch (parts) {
        case SplitParts::high_high_low_across:
            return launch(how, split<SplitParts::high_high_low_across>, from, to);
        case SplitParts::high_low_high_across:
            return launch(how, split<SplitParts::high_low_high_across>, from, to);
        case SplitParts::high_low_high_down:
            break;
    }
    return launch(how, split<SplitParts::high_low_high_down>, from, to);
}

}  // namespace fairgptq::cuda
