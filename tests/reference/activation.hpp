// The activations' definitions.
#pragma once

#include <cmath>
#include <numbers>

#include "backend/activation.hpp"

namespace fairgptq::reference {

inline double activation(Activation activation, double x) {
    switch (activation) {
        case Activation::silu:
            return x / (1 + std::exp(-x));
        case Activation::relu:
            return x > 0 ? x : 0;
        case Activation::gelu:
            return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
        case Activation::gelu_tanh:
            // 0.5·x·(1 + tanh(u)) without its cancellation at large negative x
            return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
        case Activation::sigmoid:
            return 1 / (1 + std::exp(-x));
        case Activation::identity:
            return x;
    }
    return 0;
}

}  // namespace fairgptq::reference
