#include "fairgptq/solve.hpp"
#include "solver/matrix_case.hpp"

namespace fairgptq {

QuantizedMatrix quantize_matrix(std::span<const float> weights, std::int64_t rows, std::int64_t cols,
                                std::span<const float> hessian, std::span<const float> covariance,
                                const QuantizationOptions& options) {
    SolverSettings settings;
    settings.kind = parse_solver_kind(options.solver);
    settings.grid.bits = options.bits;
    settings.grid.group_size = options.group_size;
    settings.grid.symmetric = options.symmetric;
    settings.grid.scale_search = parse_scale_search(options.scale_search);
    settings.grid.scale_type = parse_scale_type(options.scale_type);
    settings.order = parse_column_order(options.order);
    settings.static_groups = options.static_groups;
    settings.damp = options.damp;

    const MatrixCase matrix_case{rows,
                                 cols,
                                 {weights.begin(), weights.end()},
                                 {hessian.begin(), hessian.end()},
                                 {covariance.begin(), covariance.end()}};
    check_case(matrix_case, "");
    ModuleSolution solution = solve_case(*make_backend("cpu"), matrix_case, "the matrix", options.alpha, settings);
    QuantizedMatrix result;
    result.rows = rows;
    result.cols = cols;
    result.groups = solution.groups;
    result.values = dequantized(solution);
    result.codes = std::move(solution.codes);
    result.scales = std::move(solution.scales);
    result.zeros = std::move(solution.zeros);
    result.group_index = std::move(solution.group_index);
    result.damp_used = solution.damp_used;
    result.reconstruction = solution.reconstruction;
    result.bias_before = solution.bias_before;
    result.bias_after = solution.bias_after;
    return result;
}

}  // namespace fairgptq
