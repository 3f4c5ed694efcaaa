// Rotation of queries and keys by their positions. On `stream`; returns CUDA's status of the launch; any size, 0
// included.
#pragma once

#include "backend/cuda/forward_kernels.hpp"

namespace fairgptq::cuda {

/// As RotaryOperations. @param half pairs of elements that are rotated. @param positions [tokens] and @param
/// frequencies [half] on the device
cudaError_t launch_rotary(const PlainTensor& heads, std::int64_t head_dim, std::int64_t half,
                          const std::int64_t* positions, const float* frequencies, float attention_factor,
                          bool neighbours, cudaStream_t stream);

}  // namespace fairgptq::cuda
