#include "solver/figures.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fairgptq {

void RankFigures::quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                  double TileFigures::*figure) {
    take(figure, [&](const RowShares::Segment& segment, std::span<double> sums) {
        backend_.quadratic_forms(matrix.rows_from(segment.offset, segment.rows), symmetric, sums);
    });
}

std::span<const double> RankFigures::errors_of_tiles(MatrixView<const float> a, MatrixView<const float> b) {
    const std::span<double> errors(errors_.get(), tiles_.size() * static_cast<std::size_t>(cols_));
    for (const RowShares::Segment& segment : segments_)
        backend_.column_errors(a.rows_from(segment.offset, segment.rows),
                               b.empty() ? b : b.rows_from(segment.offset, segment.rows),
                               errors.subspan(static_cast<std::size_t>(segment.first_tile * cols_),
                                              static_cast<std::size_t>(RowShares::tiles_in(segment.rows) * cols_)));
    return errors;
}

std::vector<double> RankFigures::column_errors(MatrixView<const float> a, MatrixView<const float> b,
                                               std::size_t modules) {
    const std::span<const double> errors = errors_of_tiles(a, b);
    std::vector<double> sums(modules * static_cast<std::size_t>(cols_));
    constexpr std::int64_t block = 512;  // of columns: each thread's sums run in the tiles' order
    for (const RowShares::Segment& segment : segments_) {
        double* sum = sums.data() + static_cast<std::int64_t>(segment.module) * cols_;
        const std::int64_t last_tile = segment.first_tile + RowShares::tiles_in(segment.rows);
#pragma omp parallel for
        for (std::int64_t first = 0; first < cols_; first += block)
            for (std::int64_t tile = segment.first_tile; tile < last_tile; ++tile)
                for (std::int64_t col = first; col < std::min(cols_, first + block); ++col)
                    sum[col] += static_cast<float>(errors[static_cast<std::size_t>(tile * cols_ + col)]);
    }
    return sums;
}

std::int64_t RankFigures::module_not_finite(MatrixView<const float> weights) {
    // x − x is 0 for finite x only.
    const std::span<const double> differences = errors_of_tiles(weights, weights);
    for (const RowShares::Segment& segment : segments_) {
        const auto begin = differences.begin() + segment.first_tile * cols_;
        if (std::any_of(begin, begin + RowShares::tiles_in(segment.rows) * cols_,
                        [](double value) { return value != 0; }))
            return static_cast<std::int64_t>(segment.module);
    }
    return -1;
}

void RankFigures::squares(MatrixView<const float> a, MatrixView<const float> b, double TileFigures::*figure) {
    const std::span<const double> errors = errors_of_tiles(a, b);
#pragma omp parallel for
    for (std::int64_t tile = 0; tile < std::ssize(tiles_); ++tile) {
        const auto begin = errors.begin() + tile * cols_;
        tiles_[static_cast<std::size_t>(tile)].*figure = std::accumulate(begin, begin + cols_, 0.0);
    }
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
