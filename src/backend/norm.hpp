#pragma once

#include "support/views.hpp"

namespace fairgptq {

class NormOperations {
  public:
    virtual ~NormOperations() = default;

    /// output[t] = inputs[t] / sqrt(mean(inputs[t]²) + epsilon) · weight, over the last dimension.
    /// @param inputs [rows, features]; `output` may be the same memory. Statistics in float32.
    /// @param weight [features] float32
    /// Source: RMSNorm (arXiv 1910.07467).
    virtual void rms_norm(TensorView inputs, const float* weight, float epsilon, TensorView output) = 0;

    /// output[t] = (inputs[t] − mean) / sqrt(variance + epsilon) · weight + bias. Source: LayerNorm (arXiv 1607.06450).
    virtual void layer_norm(TensorView inputs, const float* weight, const float* bias, float epsilon,
                            TensorView output) = 0;
};

}  // namespace fairgptq
