#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

class ScatterOperations {
  public:
    virtual ~ScatterOperations() = default;

    /// output[ids[r]] += factors[r] · inputs[r], in float32, rounded once.
    /// @param inputs  [rows, features]
    /// @param ids     host, [rows]; distinct, each in [0, tokens)
    /// @param factors host, [rows]
    /// @param output  [tokens, features]; rows not named stay as they are; must not overlap inputs
    virtual void scatter_rows(TensorView inputs, std::span<const std::int32_t> ids, std::span<const float> factors,
                              TensorView output) = 0;
};

}  // namespace fairgptq
