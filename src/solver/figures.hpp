// What a module's record says of a solution: reconstruction, bias before and after, how far the target moved, and which
// columns' errors weigh. Nothing here decides a code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "solver/row_shares.hpp"
#include "solver/solve.hpp"

namespace fairgptq {

/// Sums over one tile of rows: gathered from all ranks and added in tile order, they do not depend on the number of
/// ranks.
struct TileFigures {
    double reconstruction = 0, bias_before = 0, bias_after = 0, shift = 0, norm = 0;
};

/// Figures of one rank's rows of a stack of modules. Matrices are [the rank's rows, n], on the device.
class RankFigures {
  public:
    /// @param segments of the rank's rows
    RankFigures(Backend& backend, std::vector<RowShares::Segment> segments, std::int64_t tiles, std::int64_t cols)
        : backend_(backend), segments_(std::move(segments)), cols_(cols), tiles_(static_cast<std::size_t>(tiles)) {}

    /// The first module that has a value at this rank that is not finite, or −1.
    std::int64_t module_not_finite(MatrixView<const float> weights);

    /// *figure of each tile = Σ a·M·aᵀ over its rows.
    void quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                         double TileFigures::*figure);
    /// *figure of each tile, where an operation on a segment's rows gives it: operation(segment, its tiles' figures).
    template <class Operation>
    void take(double TileFigures::*figure, const Operation& operation) {
        for (const RowShares::Segment& segment : segments_) {
            std::vector<double> sums(static_cast<std::size_t>(RowShares::tiles_in(segment.rows)));
            operation(segment, std::span(sums));
            for (std::size_t tile = 0; tile < sums.size(); ++tile)
                tiles_[static_cast<std::size_t>(segment.first_tile) + tile].*figure = sums[tile];
        }
    }
    /// ‖target − weights‖² and ‖weights‖² of each tile.
    void shift(MatrixView<const float> weights, MatrixView<const float> target);
    /// Σ (a − b)² over this rank's rows of each module, of every column: [modules][n]. Each tile's part is rounded to
    /// float32, so that float64 sums of them, here and over ranks, are exact but for columns of very different tiles.
    std::vector<double> column_errors(MatrixView<const float> a, MatrixView<const float> b, std::size_t modules);

    std::span<const TileFigures> tiles() const { return tiles_; }

  private:
    /// *figure of each tile = Σ (a − b)² over all of it.
    void squares(MatrixView<const float> a, MatrixView<const float> b, double TileFigures::*figure);

    Backend& backend_;
    std::vector<RowShares::Segment> segments_;
    std::int64_t cols_;
    std::vector<TileFigures> tiles_;
};

/// One module's figures, from all its tiles.
/// @param column_errors  [n], of all its rows
/// @param bias_diagonal  [n] of C; 0 where there is none
void put_figures(std::span<const TileFigures> tiles, std::span<const double> column_errors,
                 std::span<const float> bias_diagonal, ModuleSolution& solution);

}  // namespace fairgptq
