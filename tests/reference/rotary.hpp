// Rotation of the pairs (i, i + half) or (2i, 2i + 1) of each head, of as many pairs as there are frequencies, by
// position · frequency.
#pragma once

#include <cmath>
#include <span>

#include "reference/reference.hpp"

namespace fairgptq::reference {

inline Matrix rotary(Input x, std::int64_t head_dim, std::span<const std::int64_t> offsets,
                     std::span<const float> frequencies, double factor, bool neighbours = false) {
    Matrix result(x.rows, x.cols);
    for (std::int64_t row = 0; row < x.rows; ++row)
        for (std::int64_t col = 0; col < x.cols; ++col)
            result(row, col) = static_cast<double>(x(row, col));
    const std::int64_t half = std::ssize(frequencies);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        for (std::int64_t token = offsets[s]; token < offsets[s + 1]; ++token)
            for (std::int64_t head = 0; head < x.cols; head += head_dim)
                for (std::int64_t i = 0; i < half; ++i) {
                    const double angle = static_cast<double>(token - offsets[s]) *
                                         static_cast<double>(frequencies[static_cast<std::size_t>(i)]);
                    const std::int64_t first = head + (neighbours ? 2 * i : i);
                    const std::int64_t second = neighbours ? first + 1 : first + half;
                    const double a = static_cast<double>(x(token, first));
                    const double b = static_cast<double>(x(token, second));
                    result(token, first) = factor * (a * std::cos(angle) - b * std::sin(angle));
                    result(token, second) = factor * (b * std::cos(angle) + a * std::sin(angle));
                }
    return result;
}

}  // namespace fairgptq::reference
