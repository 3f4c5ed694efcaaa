// The column loop's kernels (column_block.cuh says what they do).
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/column_block.hpp"

namespace fairgptq::cuda {

/// Lets the kernel have its on-chip memory; once a device.
cudaError_t prepare_column_kernel();
cudaError_t launch_column_block(const ColumnBlock& block, cudaStream_t stream);
/// Scales and zeros of the groups of `weights`, group_size neighbouring columns each.
/// @param group_of_column device, each column's group; null if groups are in order
cudaError_t launch_find_scales(Plain<const float> weights, std::int64_t group_size, const GridRule& rule,
                               const std::int32_t* group_of_column, Plain<float> scales, Plain<std::uint8_t> zeros,
                               cudaStream_t stream);

}  // namespace fairgptq::cuda
