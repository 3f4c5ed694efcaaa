// Matrix products and quadratic forms, and the same of absolute values, which rounding errors are measured by.
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
inline Matrix product(const Matrix& a, const Matrix& b) {
    Matrix result(a.rows, b.cols);
    for (std::int64_t i = 0; i < a.rows; ++i)
        for (std::int64_t k = 0; k < a.cols; ++k)
            for (std::int64_t j = 0; j < b.cols; ++j)
                result(i, j) += a(i, k) * b(k, j);
    return result;
}

/// Columns order[0], order[1], … of a.
inline Matrix columns_in_order(const Matrix& a, const std::vector<std::int32_t>& order) {
    Matrix result(a.rows, a.cols);
    for (std::int64_t i = 0; i < a.rows; ++i)
        for (std::int64_t j = 0; j < a.cols; ++j)
            result(i, j) = a(i, order[static_cast<std::size_t>(j)]);
    return result;
}

/// Σ over rows first … first + rows of a·M·aᵀ.
inline double quadratic_form(const Matrix& a, const Matrix& m, std::int64_t first, std::int64_t rows) {
    double sum = 0;
    for (std::int64_t r = first; r < first + rows; ++r)
        for (std::int64_t i = 0; i < a.cols; ++i)
            for (std::int64_t j = 0; j < a.cols; ++j)
                sum += a(r, i) * m(i, j) * a(r, j);
    return sum;
}

}  // namespace fairgptq::reference
