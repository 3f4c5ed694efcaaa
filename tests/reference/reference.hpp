// What the reference operations are written with: plain loops in float64 over float32 inputs, one loop per index of the
// textbook's formula. Slow, and easy to check against it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/views.hpp"

namespace fairgptq::reference {

/// A float64 result.
struct Matrix {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::vector<double> values;

    Matrix(std::int64_t row_count, std::int64_t col_count)
        : rows(row_count), cols(col_count), values(static_cast<std::size_t>(row_count * col_count)) {}
    double& operator()(std::int64_t row, std::int64_t col) {
        return values[static_cast<std::size_t>(row * cols + col)];
    }
    double operator()(std::int64_t row, std::int64_t col) const {
        return values[static_cast<std::size_t>(row * cols + col)];
    }
};

using Input = MatrixView<const float>;

}  // namespace fairgptq::reference
