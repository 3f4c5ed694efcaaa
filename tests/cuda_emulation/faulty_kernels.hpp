#pragma once

#include <cuda_runtime.h>

namespace fairgptq::testing {

/// to[i] = from[63 − i] by way of on-chip memory, of 64 elements.
cudaError_t launch_reverse_on_chip(const float* from, float* to, bool with_barrier, cudaStream_t stream);
/// Each of 64 elements becomes the sum of its warp's.
cudaError_t launch_sum_of_warps(const float* from, float* to, cudaStream_t stream);
/// to[block] = whether one of the block's 64 elements is negative
cudaError_t launch_any_negative(const float* from, int* to, unsigned blocks, cudaStream_t stream);
cudaError_t launch_barrier_for_some(cudaStream_t stream);
/// to[place] = 1
cudaError_t launch_write(float* to, std::int64_t place, cudaStream_t stream);
/// As reverse_on_chip, by asynchronous copies; without waiting it reads before they arrive.
cudaError_t launch_copy_through_chip(const float* from, float* to, bool waits, cudaStream_t stream);
/// Never run: whether a launch of this shape is accepted.
cudaError_t launch_nothing(dim3 grid, dim3 block, std::size_t on_chip, cudaStream_t stream);

}  // namespace fairgptq::testing
