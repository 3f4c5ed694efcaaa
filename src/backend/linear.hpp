#pragma once

#include "support/views.hpp"

namespace fairgptq {

class LinearOperations {
  public:
    virtual ~LinearOperations() = default;

    /// output = inputs · weightsᵀ + bias, or output += the same if `accumulate`.
    /// @param inputs  [tokens, in]
    /// @param weights [out, in]
    /// @param bias    [out] float32, or null
    /// @param output  [tokens, out] of the inputs' type or, without a bias, float32; written; float32 accumulation,
    /// never aliasing the inputs
    virtual void linear(TensorView inputs, TensorView weights, const float* bias, TensorView output,
                        bool accumulate) = 0;
};

}  // namespace fairgptq
