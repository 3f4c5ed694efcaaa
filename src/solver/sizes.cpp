// What can be said of a solve before there is anything to solve: for `plan`, and for whoever chose its options.
#include <algorithm>
#include <cmath>

#include "solver/row_shares.hpp"
#include "solver/solve.hpp"
#include "support/error.hpp"

namespace fairgptq {

void check(const StageProblem& problem) {
    const std::int64_t n = problem.hessian.cols;
    if (problem.hessian.rows != n) throw InvalidInput("H is {} x {}; it must be square", problem.hessian.rows, n);
    if (!problem.covariance.empty() && (problem.covariance.rows != n || problem.covariance.cols != n))
        throw InvalidInput("C is {} x {}; it must be {} x {}, as H is", problem.covariance.rows,
                           problem.covariance.cols, n, n);
    for (const ModuleTask& module : problem.modules) {
        if (module.weights.cols != n)
            throw InvalidInput("{} has {} input columns, and its Hessian {}; they must agree", module.name,
                               module.weights.cols, n);
        if (!module.dequantized.empty() &&
            (module.dequantized.rows != module.weights.rows || module.dequantized.cols != n))
            throw Failure("{}: {} x {} is no place for its values: it has {} x {}", module.name,
                          module.dequantized.rows, module.dequantized.cols, module.weights.rows, n);
        if (!std::isfinite(module.alpha) || module.alpha < 0)
            throw InvalidInput("{}: alpha is {}; it must be 0 or more", module.name, module.alpha);
        if (module.alpha > 0 && problem.covariance.empty())
            throw InvalidInput("{}: alpha is {}, and there are no pairs to take bias from; give pairs, or --alpha 0",
                               module.name, module.alpha);
    }
}

std::int64_t resolve_group_size(std::int64_t group_size, std::int64_t cols, const std::string& module) {
    if (group_size == -1) return cols;
    if (group_size > 0 && cols % group_size == 0) return group_size;
    std::string fitting;
    for (const std::int64_t size : {32, 64, 128, 256})
        if (cols % size == 0) fitting += fmt::format("{}, ", size);
    throw InvalidInput("{}: --group-size {} does not divide its {} input columns; {}-1 (the whole row) would", module,
                       group_size, cols, fitting.empty() ? "" : fitting + "or ");
}

std::int64_t rows_of_rank(std::int64_t rows, std::int64_t ranks) {
    const std::int64_t tiles = RowShares::tiles_in(rows);
    return std::min(rows, (tiles + ranks - 1) / ranks * RowShares::tile_rows);
}

std::size_t grid_bytes(std::int64_t rows, std::int64_t cols, std::int64_t group_size) {
    return static_cast<std::size_t>(rows) *
           static_cast<std::size_t>(cols + cols / group_size * static_cast<std::int64_t>(sizeof(float) + 1));
}

std::size_t solver_bytes(std::int64_t rows, std::int64_t cols, std::int64_t ranks, std::int64_t group_size, bool lent) {
    const std::int64_t groups = cols / group_size;
    constexpr std::int64_t real = sizeof(float);
    const std::int64_t per_row = cols * (3 * real + 1) + groups * (real + 1);
    return static_cast<std::size_t>(rows_of_rank(rows, ranks) * per_row + (lent ? 0 : cols * cols * real) +
                                    cols * static_cast<std::int64_t>(sizeof(std::int32_t)));
}

}  // namespace fairgptq
