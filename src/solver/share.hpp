// The memory that one rank solves in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "solver/figures.hpp"
#include "solver/row_shares.hpp"

namespace fairgptq {

/// One rank's rows of the modules of one alpha: device memory for the solve, host memory for what is gathered after it.
struct Share {
    std::int64_t rows, n, groups;
    Buffer weight_buffer, target_buffer, natural_buffer, code_buffer, scale_buffer, zero_buffer, loop_group_buffer;
    MatrixView<float> weights, target,
        natural;                     // [rows, n]: W; targets, then Q, in loop order; scratch in the matrix's order
    MatrixView<std::uint8_t> codes;  // [rows, n] in loop order, then in the matrix's
    MatrixView<float> scales;        // [rows, groups]
    MatrixView<std::uint8_t> zeros;  // [rows, groups]

    RankFigures figures;
    std::vector<double> column_errors;  // the figures' [modules][n] of the solution, this rank's, then all ranks'
    Buffer kept_target;                 // [rows][n] in the matrix's order, if kept

    Share(Backend& backend, const RowShares& shares, int rank, std::int64_t cols, std::int64_t group_count)
        : rows(shares.rows_of(rank)),
          n(cols),
          groups(group_count),
          figures(backend, shares.segments_of(rank), shares.tiles_of(rank), cols) {
        const auto elements = static_cast<std::size_t>(rows * n);
        const auto group_elements = static_cast<std::size_t>(rows * groups);
        weight_buffer = backend.allocate(elements * sizeof(float));
        target_buffer = backend.allocate(elements * sizeof(float));
        natural_buffer = backend.allocate(elements * sizeof(float));
        code_buffer = backend.allocate(elements);
        scale_buffer = backend.allocate(group_elements * sizeof(float));
        zero_buffer = backend.allocate(group_elements);
        loop_group_buffer = backend.allocate(static_cast<std::size_t>(n) * sizeof(std::int32_t));
        weights = weight_buffer.matrix<float>(rows, n);
        target = target_buffer.matrix<float>(rows, n);
        natural = natural_buffer.matrix<float>(rows, n);
        codes = code_buffer.matrix<std::uint8_t>(rows, n);
        scales = scale_buffer.matrix<float>(rows, groups);
        zeros = zero_buffer.matrix<std::uint8_t>(rows, groups);
    }
};

}  // namespace fairgptq
