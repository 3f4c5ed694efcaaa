#pragma once

#include <cstdint>

#include "support/views.hpp"

namespace fairgptq {

class DequantizeOperations {
  public:
    virtual ~DequantizeOperations() = default;

    /// weights[r, c] = scales[r, g] · (codes[r, c] − zeros[r, g]), g = group_index[c]; all on the device.
    /// @param codes       [rows, cols], one code a byte
    /// @param scales      [rows, groups]
    /// @param zeros       [rows, groups]
    /// @param group_index [cols]
    /// @param weights     [rows, cols], written, rounded to its own type
    virtual void dequantize(MatrixView<const std::uint8_t> codes, MatrixView<const float> scales,
                            MatrixView<const std::uint8_t> zeros, const std::int32_t* group_index,
                            TensorView weights) = 0;
};

}  // namespace fairgptq
