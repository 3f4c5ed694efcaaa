// Tensors as the forward pass's kernels take them.
#pragma once

#include "backend/cuda/forward_kernels.hpp"
#include "support/views.hpp"

namespace fairgptq::cuda {

/// Of what kernels count rows, positions and tokens of in 32 bits.
constexpr std::int64_t most_rows = std::int64_t{1} << 30;

inline PlainTensor plain(const TensorView& tensor) {
    return {tensor.data, tensor.type, tensor.rows, tensor.cols, tensor.stride};
}

/// Kernels are compiled for one element type for all of an operation's tensors.
inline void require_one_type(const char* operation, const TensorView& a, const TensorView& b) {
    if (a.type != b.type) throw Failure("{}: its tensors should be of one element type", operation);
}

}  // namespace fairgptq::cuda
