// Matrix products and quadratic forms, and the same of absolute values, which rounding errors are measured by. What
// takes n³ steps is in products.cpp, which is optimised and which no sanitizer watches: operands are checked before.
#pragma once

#include <cmath>

#include "reference/reference.hpp"

namespace fairgptq::reference {

inline Matrix copy(Input a) {
    Matrix result(a.rows, a.cols);
    for (std::int64_t i = 0; i < a.rows; ++i)
        for (std::int64_t j = 0; j < a.cols; ++j)
            result(i, j) = a(i, j);
    return result;
}

inline Matrix magnitudes(Matrix a) {
    for (double& value : a.values)
        value = std::fabs(value);
    return a;
}

inline Matrix transposed(const Matrix& a) {
    Matrix result(a.cols, a.rows);
    for (std::int64_t i = 0; i < a.rows; ++i)
        for (std::int64_t j = 0; j < a.cols; ++j)
            result(j, i) = a(i, j);
    return result;
}

/// a · b
Matrix product(const Matrix& a, const Matrix& b);
/// xᵀ·x
Matrix gram(Input x);

/// Columns order[0], order[1], … of a.
inline Matrix columns_in_order(const Matrix& a, const std::vector<std::int32_t>& order) {
    Matrix result(a.rows, a.cols);
    for (std::int64_t i = 0; i < a.rows; ++i)
        for (std::int64_t j = 0; j < a.cols; ++j)
            result(i, j) = a(i, order[static_cast<std::size_t>(j)]);
    return result;
}

/// Σ over rows first … first + rows of a·M·aᵀ.
double quadratic_form(const Matrix& a, const Matrix& m, std::int64_t first, std::int64_t rows);

}  // namespace fairgptq::reference
