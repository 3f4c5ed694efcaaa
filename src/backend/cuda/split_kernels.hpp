// float32 numbers as sums of two that a tensor core takes exactly (products.hpp says what for).
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/portable.hpp"

namespace fairgptq::cuda {

/// What of a matrix [rows, cols] goes where: into [rows, 3·cols], or [3·rows, cols].
enum class SplitParts : std::uint8_t { high_high_low_across, high_low_high_across, high_low_high_down };

/// high = x rounded to TF32 (10 bits behind the point, half to even), low = x − high rounded likewise: together x to
/// 2⁻²² of itself. @param to without gaps
cudaError_t launch_split(Plain<const float> from, SplitParts parts, Plain<float> to, cudaStream_t stream);

}  // namespace fairgptq::cuda
