// value = scale · (code − zero) of the column's group.
#pragma once

#include "reference/reference.hpp"

namespace fairgptq::reference {

inline Matrix dequantize(MatrixView<const std::uint8_t> codes, Input scales, MatrixView<const std::uint8_t> zeros,
                         const std::int32_t* group_index) {
    Matrix result(codes.rows, codes.cols);
    for (std::int64_t row = 0; row < codes.rows; ++row)
        for (std::int64_t col = 0; col < codes.cols; ++col) {
            const std::int64_t group = group_index[col];
            result(row, col) = static_cast<double>(scales(row, group)) *
                               (static_cast<double>(codes(row, col)) - static_cast<double>(zeros(row, group)));
        }
    return result;
}

}  // namespace fairgptq::reference
