#pragma once

#include "support/views.hpp"

namespace fairgptq {

class ScaleOperations {
  public:
    virtual ~ScaleOperations() = default;

    /// output = factor · inputs, elementwise, or output += the same if `accumulate`; in float32, rounded once.
    /// @param inputs [tokens, features]
    /// @param output [tokens, features], written; may be inputs
    virtual void scale(TensorView inputs, float factor, TensorView output, bool accumulate) = 0;
};

}  // namespace fairgptq
