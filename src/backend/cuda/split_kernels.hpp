// float32 numbers as sums of three that a tensor core takes exactly (products.hpp says what for).
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/portable.hpp"

namespace fairgptq::cuda {

/// Products of parts, smallest first: 02, 11, 20, 01, 10, 00. Tensor cores cut off what they add at the sum's last bits
/// instead of rounding it, so small ones are not to meet a large sum, nor a large sum many additions.
constexpr int split_products = 6;
FAIRGPTQ_PORTABLE constexpr int split_part(int product, bool of_first_factor) {
    const int sum = product < 3 ? 2 : product < 5 ? 1 : 0;  // of both parts' numbers
    const int first = product - (sum == 2 ? 0 : sum == 1 ? 3 : 5);
    return of_first_factor ? first : sum - first;
}

/// Which factor it is, and where its parts go: into [rows, 6·cols] or [6·rows, cols].
enum class SplitParts : std::uint8_t { first_across, first_down, second_across, second_down };

/// Part 0 is x rounded to bfloat16, part 1 what that leaves, rounded, part 2 what both leave: together x.
/// @param from its columns a multiple of 8
/// @param to bfloat16, without gaps, aligned to 16 bytes
cudaError_t launch_split(Plain<const float> from, SplitParts parts, void* to, cudaStream_t stream);

}  // namespace fairgptq::cuda
