// Random layers with calibration inputs and pairs whose differences have a few strong directions, as bias has.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "reference/products.hpp"
#include "solver/solve.hpp"

namespace fairgptq::testing {

struct RandomProblem {
    std::int64_t rows, n;
    std::vector<float> weights, hessian, covariance;

    /// @param directions of the pairs' differences
    RandomProblem(std::int64_t row_count, std::int64_t cols, unsigned seed, std::int64_t directions = 4)
        : rows(row_count), n(cols) {
        std::mt19937 generator(seed);
        std::normal_distribution<float> normal;
        const auto matrix = [&](std::int64_t height, std::int64_t width, float scale) {
            std::vector<float> values(static_cast<std::size_t>(height * width));
            for (float& value : values)
                value = scale * normal(generator);
            return values;
        };
        weights = matrix(rows, n, 0.05F);
        // Inputs mix a few strong directions with noise, and their columns differ in size.
        const std::int64_t tokens = 2 * n;
        const std::int64_t factors = 6;
        const std::vector<float> mixing = matrix(factors, n, 1);
        const std::vector<float> parts = matrix(tokens, factors, 1);
        std::vector<float> inputs = matrix(tokens, n, 0.5F);
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::int64_t i = 0; i < n; ++i) {
                for (std::int64_t f = 0; f < factors; ++f)
                    inputs[t * n + i] += parts[t * factors + f] * mixing[f * n + i];
                inputs[t * n + i] *= 0.25F + static_cast<float>(i % 5);
            }
        hessian = gram(inputs, tokens);
        const std::int64_t columns = 3 * directions;
        const std::vector<float> bias = matrix(directions, n, 2);
        const std::vector<float> strength = matrix(columns, directions, 1);
        std::vector<float> differences = matrix(columns, n, 0.05F);
        for (std::int64_t p = 0; p < columns; ++p)
            for (std::int64_t i = 0; i < n; ++i)
                for (std::int64_t d = 0; d < directions; ++d)
                    differences[p * n + i] += strength[p * directions + d] * bias[d * n + i];
        covariance = gram(differences, columns);
    }

    TensorView weight_view() { return MatrixView<float>(weights.data(), rows, n); }
    StageProblem stage(double alpha) {
        return {{hessian.data(), n, n}, {covariance.data(), n, n}, {{"layer", weight_view(), alpha}}};
    }

  private:
    /// (2 / rows) · XᵀX
    std::vector<float> gram(const std::vector<float>& x, std::int64_t x_rows) const {
        const reference::Matrix sum = reference::gram({x.data(), x_rows, n});
        std::vector<float> result(sum.values.size());
        for (std::size_t i = 0; i < result.size(); ++i)
            result[i] = static_cast<float>(2 * sum.values[i] / static_cast<double>(x_rows));
        return result;
    }
};

/// J(Q) of docs/method.md, up to what does not depend on Q.
inline double objective(const ModuleSolution& solution) {
    return solution.reconstruction + solution.alpha * solution.bias_after;
}

}  // namespace fairgptq::testing
