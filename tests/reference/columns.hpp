// GPTQ's column loop in float64, retraced from a finished result: given the values that a backend chose, what each
// weight was when its turn came, and how far float32 may be from that. So a tie that float32 breaks the other way does
// not send the two loops apart.
#pragma once

#include <algorithm>
#include <cmath>

#include "backend/columns.hpp"
#include "reference/reference.hpp"

namespace fairgptq::reference {

/// A row as the loop sees it.
struct RetracedRow {
    std::vector<double> weights;  // [n] current values
    std::vector<double> bound;    // [n] how far a float32 loop's current values may be from these
};

/// One column's error spread over the columns after it: w_j −= (w_i − q)/R_ii · R_ij.
/// @param quantized q, the value that was chosen for column i
inline void spread_error(RetracedRow& row, Input inverse, std::int64_t i, double quantized) {
    constexpr double roundoff = 0x1p-24;
    const double pivot = inverse(i, i);
    const double error = (row.weights[i] - quantized) / pivot;
    // The error inherits the weight's bound, and is rounded in a subtraction and a division; each update rounds once
    // more.
    const double error_bound = row.bound[i] / pivot + 2 * roundoff * std::fabs(error);
    for (std::int64_t j = i + 1; j < inverse.cols; ++j) {
        const double factor = inverse(i, j);
        row.weights[j] -= error * factor;
        row.bound[j] +=
            error_bound * std::fabs(factor) + roundoff * (std::fabs(row.weights[j]) + std::fabs(error * factor));
    }
}

/// The range of some weights: widened to hold 0, even around 0 if symmetric, −1 … 1 if empty.
struct Range {
    double low = 0, high = 0;
};
inline Range range_of(const std::vector<double>& weights, std::int64_t first, std::int64_t count, bool symmetric) {
    Range range;
    for (std::int64_t i = first; i < first + count; ++i) {
        range.low = std::min(range.low, weights[i]);
        range.high = std::max(range.high, weights[i]);
    }
    if (symmetric) {
        range.high = std::max(range.high, -range.low);
        range.low = -range.high;
    }
    if (range.low == 0 && range.high == 0) range = {-1, 1};
    return range;
}

/// Σ|w − q|^2.4 of rounding to a grid.
inline double grid_error(const std::vector<double>& weights, std::int64_t first, std::int64_t count, double scale,
                         double zero, int bits) {
    double sum = 0;
    for (std::int64_t i = first; i < first + count; ++i) {
        const double code = std::clamp(std::nearbyint(weights[i] / scale) + zero, 0.0, std::exp2(bits) - 1);
        sum += std::pow(std::fabs(scale * (code - zero) - weights[i]), 2.4);
    }
    return sum;
}

}  // namespace fairgptq::reference
