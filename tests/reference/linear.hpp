// X·Wᵀ + b.
#pragma once

#include "reference/reference.hpp"

namespace fairgptq::reference {

/// @param bias [out], or null
inline Matrix linear(Input x, Input w, const float* bias) {
    Matrix result(x.rows, w.rows);
    for (std::int64_t token = 0; token < x.rows; ++token)
        for (std::int64_t out = 0; out < w.rows; ++out) {
            double sum = bias == nullptr ? 0.0 : static_cast<double>(bias[out]);
            for (std::int64_t in = 0; in < x.cols; ++in)
                sum += static_cast<double>(x(token, in)) * static_cast<double>(w(out, in));
            result(token, out) = sum;
        }
    return result;
}

}  // namespace fairgptq::reference
