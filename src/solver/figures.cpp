#include "solver/figures.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace fairgptq {

void RankFigures::quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                  double TileFigures::*figure) {
    take(figure, [&](const RowShares::Segment& segment, std::span<double> sums) {
        backend_.quadratic_forms(matrix.rows_from(segment.offset, segment.rows), symmetric, sums);
    });
}

std::vector<double> RankFigures::column_errors(MatrixView<const float> a, MatrixView<const float> b,
                                               std::size_t modules) {
    const auto cols = static_cast<std::size_t>(cols_);
    std::vector<double> sums(modules * cols), errors(cols);
    for (const RowShares::Segment& segment : segments_) {
        backend_.column_errors(a.rows_from(segment.offset, segment.rows), b.rows_from(segment.offset, segment.rows),
                               errors);
        const std::span sum = std::span(sums).subspan(static_cast<std::size_t>(segment.module) * cols, cols);
        std::ranges::transform(sum, errors, sum.begin(), std::plus());
    }
    return sums;
}

std::int64_t RankFigures::module_not_finite(MatrixView<const float> weights) {
    for (const RowShares::Segment& segment : segments_) {
        const MatrixView<const float> rows = weights.rows_from(segment.offset, segment.rows);
        std::vector<double> differences(static_cast<std::size_t>(RowShares::tiles_in(segment.rows)));
        backend_.tile_squares(rows, rows, differences);  // x − x is 0 for finite x only
        if (std::ranges::any_of(differences, [](double value) { return value != 0; }))
            return static_cast<std::int64_t>(segment.module);
    }
    return -1;
}

void RankFigures::squares(MatrixView<const float> a, MatrixView<const float> b, double TileFigures::*figure) {
    take(figure, [&](const RowShares::Segment& segment, std::span<double> sums) {
        backend_.tile_squares(a.rows_from(segment.offset, segment.rows),
                              b.empty() ? b : b.rows_from(segment.offset, segment.rows), sums);
    });
}

void RankFigures::shift(MatrixView<const float> weights, MatrixView<const float> target) {
    squares(target, weights, &TileFigures::shift);
    squares(weights, {}, &TileFigures::norm);
}

void put_figures(std::span<const TileFigures> tiles, std::span<const double> column_errors,
                 std::span<const float> bias_diagonal, ModuleSolution& solution) {
    const std::size_t n = bias_diagonal.size();
    TileFigures sums;
    for (const TileFigures& one : tiles) {
        sums.reconstruction += one.reconstruction;
        sums.bias_before += one.bias_before;
        sums.bias_after += one.bias_after;
        sums.shift += one.shift;
        sums.norm += one.norm;
    }
    solution.reconstruction = sums.reconstruction;
    solution.bias_before = sums.bias_before;
    solution.bias_after = sums.bias_after;
    solution.shift_norm = sums.norm > 0 ? std::sqrt(sums.shift / sums.norm) : 0;
    solution.column_sensitivity.resize(n);
    for (std::size_t col = 0; col < n; ++col)
        solution.column_sensitivity[col] =
            static_cast<float>(static_cast<double>(bias_diagonal[col]) * std::sqrt(column_errors[col]));
}

}  // namespace fairgptq
