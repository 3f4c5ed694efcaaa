// Log-softmax at the target, and the largest entry.
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

inline std::int64_t most_probable_token(Input logits, std::int64_t row) {
    std::int64_t best = 0;
    for (std::int64_t i = 1; i < logits.cols; ++i)
        if (logits(row, i) > logits(row, best)) best = i;
    return best;
}

}  // namespace fairgptq::reference
