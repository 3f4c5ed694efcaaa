#include "backend/cuda/column_block.cuh"
#include "backend/cuda/columns_kernels.hpp"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/on_chip.cuh"

namespace fairgptq::cuda {
namespace {

// Two blocks an SM: while one rounds, in a chain of dependent instructions, the other spreads errors.
__global__ __launch_bounds__(BlockShape::threads, 2) void column_block(const __grid_constant__ ColumnBlock block) {
    quantize_block(*dynamic_on_chip<BlockMemory>(), block, blockIdx.x);
}

// Four blocks an SM leave a thread 128 registers; by itself ptxas aims at more blocks, and spills.
__global__ __launch_bounds__(BlockShape::threads,
                             4) void find_scales(const __grid_constant__ Plain<const float> weights,
                                                 std::int64_t group_size, GridRule rule,
                                                 const std::int32_t* group_of_column, Plain<float> scales,
                                                 Plain<std::uint8_t> zeros) {
    __shared__ ScaleMemory memory;
    // Rows are the grid's long side: the other one ends at 65535.
    for (std::int64_t group = blockIdx.y; group * group_size < weights.cols; group += gridDim.y) {
        const Plain<const float> one{weights.data + group * group_size, weights.rows, group_size, weights.stride};
        const std::int64_t name = group_of_column == nullptr ? group : group_of_column[group * group_size];
        find_group_scales(memory, one, rule, blockIdx.x, name, scales, zeros);
    }
}

}  // namespace

cudaError_t prepare_column_kernel() {
    return cudaFuncSetAttribute(column_block, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(BlockMemory));
}

cudaError_t launch_column_block(const ColumnBlock& block, cudaStream_t stream) {
    const auto tiles = static_cast<unsigned>(ceil_div(block.weights.rows, BlockShape::rows));
    if (tiles == 0 || block.weights.cols == 0) return cudaSuccess;
    return launch({tiles, BlockShape::threads, sizeof(BlockMemory), stream}, column_block, block);
}

cudaError_t launch_find_scales(Plain<const float> weights, std::int64_t group_size, const GridRule& rule,
                               const std::int32_t* group_of_column, Plain<float> scales, Plain<std::uint8_t> zeros,
                               cudaStream_t stream) {
    const auto tiles = static_cast<unsigned>(ceil_div(weights.rows, BlockShape::rows));
    const auto groups = static_cast<unsigned>(smaller(weights.cols / group_size, 65535));
    if (tiles == 0 || groups == 0) return cudaSuccess;
    return launch({dim3(tiles, groups), BlockShape::threads, 0, stream}, find_scales, weights, group_size, rule,
                  group_of_column, scales, zeros);
}

}  // namespace fairgptq::cuda
