// Convolution of channels over tokens. On `stream`; returns CUDA's status of the launch; any size, 0 included.
#pragma once

#include "backend/cuda/forward_kernels.hpp"

namespace fairgptq::cuda {

/// As ConvolutionOperations. @param previous [rows] on the device
cudaError_t launch_convolution(const PlainTensor& inputs, const float* weights, std::int64_t width,
                               const std::int32_t* previous, bool silu, const PlainTensor& output, cudaStream_t stream);

}  // namespace fairgptq::cuda
