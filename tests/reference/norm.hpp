// RMSNorm and LayerNorm.
#pragma once

#include <cmath>

#include "reference/reference.hpp"

namespace fairgptq::reference {

inline Matrix rms_norm(Input x, const float* weight, double epsilon) {
    Matrix result(x.rows, x.cols);
    for (std::int64_t row = 0; row < x.rows; ++row) {
        double squares = 0;
        for (std::int64_t col = 0; col < x.cols; ++col)
            squares += std::pow(static_cast<double>(x(row, col)), 2);
        const double root = std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
        for (std::int64_t col = 0; col < x.cols; ++col)
            result(row, col) = static_cast<double>(x(row, col)) / root * static_cast<double>(weight[col]);
    }
    return result;
}

inline Matrix layer_norm(Input x, const float* weight, const float* bias, double epsilon) {
    Matrix result(x.rows, x.cols);
    for (std::int64_t row = 0; row < x.rows; ++row) {
        double sum = 0;
        for (std::int64_t col = 0; col < x.cols; ++col)
            sum += static_cast<double>(x(row, col));
        const double mean = sum / static_cast<double>(x.cols);
        double squares = 0;
        for (std::int64_t col = 0; col < x.cols; ++col)
            squares += std::pow(static_cast<double>(x(row, col)) - mean, 2);
        const double root = std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
        for (std::int64_t col = 0; col < x.cols; ++col)
            result(row, col) = (static_cast<double>(x(row, col)) - mean) / root * static_cast<double>(weight[col]) +
                               static_cast<double>(bias[col]);
    }
    return result;
}

}  // namespace fairgptq::reference
