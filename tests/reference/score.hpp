// Log-softmax at the target.
#pragma once

#include <cmath>

#include "reference/reference.hpp"

namespace fairgptq::reference {

inline double token_log_probability(Input logits, std::int64_t row, std::int64_t target) {
    double largest = static_cast<double>(logits(row, 0));
    for (std::int64_t i = 0; i < logits.cols; ++i)
        largest = std::fmax(largest, static_cast<double>(logits(row, i)));
    double sum = 0;
    for (std::int64_t i = 0; i < logits.cols; ++i)
        sum += std::exp(static_cast<double>(logits(row, i)) - largest);
    return static_cast<double>(logits(row, target)) - largest - std::log(sum);
}

}  // namespace fairgptq::reference
