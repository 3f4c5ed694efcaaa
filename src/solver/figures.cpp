#include "solver/figures.hpp"

#include <cmath>
#include <numeric>

namespace fairgptq {

void RankFigures::quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                  double TileFigures::*figure) {
    take(figure, [&](const RowShares::Segment& segment, std::span<double> sums) {
        backend_.quadratic_forms(matrix.rows_from(segment.offset, segment.rows), symmetric, sums);
    });
}

/// @param b may be empty: 0
std::vector<double> RankFigures::tile_errors(MatrixView<const float> a, MatrixView<const float> b) const {
    std::vector<double> errors(tiles_.size() * static_cast<std::size_t>(cols_));
    for (const RowShares::Segment& segment : segments_)
        backend_.column_errors(
            a.rows_from(segment.offset, segment.rows), b.empty() ? b : b.rows_from(segment.offset, segment.rows),
            std::span(errors).subspan(static_cast<std::size_t>(segment.first_tile * cols_),
                                      static_cast<std::size_t>(RowShares::tiles_in(segment.rows) * cols_)));
    return errors;
}

void RankFigures::shift(MatrixView<const float> weights, MatrixView<const float> target) {
    const std::vector<double> moved = tile_errors(target, weights);
    const std::vector<double> norm = tile_errors(weights, {});
    for (std::size_t tile = 0; tile < tiles_.size(); ++tile) {
        const auto begin = static_cast<std::ptrdiff_t>(tile) * cols_;
        tiles_[tile].shift = std::accumulate(moved.begin() + begin, moved.begin() + begin + cols_, 0.0);
        tiles_[tile].norm = std::accumulate(norm.begin() + begin, norm.begin() + begin + cols_, 0.0);
    }
}

void put_figures(std::span<const TileFigures> tiles, std::span<const double> column_errors,
                 std::span<const float> bias_diagonal, ModuleSolution& solution) {
    const std::size_t n = bias_diagonal.size();
    TileFigures sums;
    std::vector<double> errors(n);
    for (std::size_t tile = 0; tile < tiles.size(); ++tile) {
        const TileFigures& one = tiles[tile];
        sums.reconstruction += one.reconstruction;
        sums.bias_before += one.bias_before;
        sums.bias_after += one.bias_after;
        sums.shift += one.shift;
        sums.norm += one.norm;
        for (std::size_t col = 0; col < n; ++col)
            errors[col] += column_errors[tile * n + col];
    }
    solution.reconstruction = sums.reconstruction;
    solution.bias_before = sums.bias_before;
    solution.bias_after = sums.bias_after;
    solution.shift_norm = sums.norm > 0 ? std::sqrt(sums.shift / sums.norm) : 0;
    solution.column_sensitivity.resize(n);
    for (std::size_t col = 0; col < n; ++col)
        solution.column_sensitivity[col] =
            static_cast<float>(static_cast<double>(bias_diagonal[col]) * std::sqrt(errors[col]));
}

}  // namespace fairgptq
