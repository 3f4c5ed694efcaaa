// What the solver reads of H and C at the host: their diagonals.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "solver/solve.hpp"

namespace fairgptq {

/// Diagonals of H and C, and what follows from them.
struct Diagonals {
    std::vector<float> hessian, covariance;  // covariance is all 0 where there is none
    std::vector<std::uint8_t> dead;          // H_ii = 0 and C_ii = 0

    Diagonals(Backend& backend, const StageProblem& problem)
        : hessian(static_cast<std::size_t>(problem.hessian.cols)), covariance(hessian.size()), dead(hessian.size()) {
        backend.diagonal(problem.hessian, hessian);
        if (!problem.covariance.empty()) backend.diagonal(problem.covariance, covariance);
        for (std::size_t i = 0; i < dead.size(); ++i)
            dead[i] = hessian[i] == 0 && covariance[i] == 0 ? 1 : 0;
    }
    bool any_dead() const { return std::find(dead.begin(), dead.end(), 1) != dead.end(); }
    /// Of H + alpha·C.
    std::vector<double> sum(double alpha) const {
        std::vector<double> result(hessian.size());
        for (std::size_t i = 0; i < result.size(); ++i)
            result[i] = static_cast<double>(hessian[i]) + alpha * static_cast<double>(covariance[i]);
        return result;
    }
    double mean(double alpha) const {
        const std::vector<double> values = sum(alpha);
        return values.empty() ? 0
                              : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    }
};

}  // namespace fairgptq
