#pragma once

#include "support/views.hpp"

namespace fairgptq {

class SoftCapOperations {
  public:
    virtual ~SoftCapOperations() = default;

    /// values = cap · tanh(values / cap), elementwise: nothing is larger than the cap, and what is much smaller stays
    /// (arXiv 2408.00118, section 2). In float32, to cap · 10⁻⁶, rounded once.
    /// @param values [tokens, features], changed in place
    /// @param cap    above 0
    /// @throws Failure if the cap is not
    virtual void soft_cap(TensorView values, float cap) = 0;
};

}  // namespace fairgptq
