#pragma once

#include <cstdint>

#include "support/views.hpp"

namespace fairgptq {

enum class ScaleSearch : std::uint8_t { none, mse };
enum class ScaleType : std::uint8_t { float16, float32 };

/// A uniform grid: value = scale · (code − zero), codes 0 … 2^bits − 1. Scales are rounded to `scale_type` before use.
struct Grid {
    int bits = 4;
    std::int64_t group_size = 128;  // columns that share a scale; the row's width for one scale a row
    bool symmetric = true;          // zero fixed at 2^(bits−1)
    ScaleSearch scale_search = ScaleSearch::none;
    ScaleType scale_type = ScaleType::float16;
    bool operator==(const Grid&) const = default;
};

/// From which weights a group's scale is found (docs/method.md "The column loop").
enum class ScaleMoment : std::uint8_t {
    group_start,  // as updated when the loop reaches the group's first column (`joint`)
    block_start,  // as they stood when the 128-column block began (the authors' code)
    given,        // `scales` and `zeros` hold them on entry (static groups, the authors' whole-row scales)
};

struct ColumnProblem {
    MatrixView<float> weights;        // [rows, n] targets in loop order; on return the dequantized values
    MatrixView<const float> inverse;  // R [n, n], upper triangular: Hessian⁻¹ = RᵀR
    Grid grid;
    ScaleMoment scale_moment = ScaleMoment::group_start;
    const std::int32_t* group_of_column = nullptr;  // device, [n]: group of the i-th column of the loop
    MatrixView<std::uint8_t> codes;                 // [rows, n] in loop order, written
    MatrixView<float> scales;                       // [rows, groups], written unless given
    MatrixView<std::uint8_t> zeros;                 // [rows, groups], written unless given
};

class ColumnOperations {
  public:
    virtual ~ColumnOperations() = default;

    /// GPTQ's column loop: rounds column after column to the grid and spreads each column's error over the columns
    /// after it, in blocks of 128 columns with one matrix product for everything behind a block. Rows are independent,
    /// and the result of a row does not depend on the rows it is solved with. Source: GPTQ (arXiv 2210.17323)
    /// algorithm 1.
    virtual void quantize_columns(const ColumnProblem& problem) = 0;

    /// Scales and zeros of every group of `weights` as they are: grid.group_size neighbouring columns a group.
    /// @param weights [rows, n]; @param scales, zeros [rows, groups], written
    virtual void find_scales(MatrixView<const float> weights, const Grid& grid, MatrixView<float> scales,
                             MatrixView<std::uint8_t> zeros) = 0;
};

}  // namespace fairgptq
