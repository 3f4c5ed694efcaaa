#pragma once

#include <cstdint>

#include "support/views.hpp"

namespace fairgptq {

enum class Activation : std::uint8_t { silu, relu, gelu, gelu_tanh, sigmoid, identity };

class ActivationOperations {
  public:
    virtual ~ActivationOperations() = default;

    /// output = activation(gate) · up, elementwise, all [tokens, features]; output may be gate or up.
    virtual void gated_activation(Activation activation, TensorView gate, TensorView up, TensorView output) = 0;

    /// output = activation(inputs), elementwise; output may be inputs.
    virtual void activation(Activation activation, TensorView inputs, TensorView output) = 0;
};

}  // namespace fairgptq
