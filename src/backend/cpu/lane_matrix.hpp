// Products of weights in lanes (lanes.hpp) with packed matrices. A row's result cannot depend on the rows beside it,
// nor on threads, whatever the sizes; and as the weights need no packing, this is faster than a BLAS call with 64 rows
// on its left.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/cpu/lanes.hpp"
#include "backend/cpu/pages.hpp"
#include "support/views.hpp"

namespace fairgptq::lanes {

constexpr std::int64_t panel_width = 8;

/// Rows of weights in tiles of 64 lanes, each [columns rounded up to panels][64]; uninitialised. The columns beyond the
/// last are room for the kernel to write, and nobody reads them.
class LaneMatrix {
  public:
    LaneMatrix(std::int64_t rows, std::int64_t cols)
        : rows_(rows),
          stride_((cols + panel_width - 1) / panel_width * panel_width * count),
          values_(static_cast<std::size_t>(tiles() * stride_)) {}

    std::int64_t tiles() const { return (rows_ + count - 1) / count; }
    float* column(std::int64_t tile, std::int64_t col) { return values_.data() + tile * stride_ + col * count; }
    /// A tile's rows in a row-major matrix of as many rows.
    template <class T>
    MatrixView<T> rows_of(MatrixView<T> matrix, std::int64_t tile) const {
        return matrix.rows_from(tile * count, std::min(count, rows_ - tile * count));
    }

  private:
    std::int64_t rows_, stride_;
    ScratchFloats values_;
};

/// Which elements of a matrix M [n, n] stand at (k, j).
enum class Form : std::uint8_t {
    square,            // M[k, j]
    upper,             // M[k, j] from the diagonal on
    upper_transposed,  // M[j, k] up to the diagonal
    doubled_triangle,  // 2·M[k, j] right of the diagonal and M[k, k] on it: a·M·aᵀ of a symmetric M from half the
                       // products
};

/// Up to 1024 rows of a matrix in the order in which `subtract_product` reads them: blocks of 128 rows, each in panels
/// of 8 columns, each with its rows one after the other. Holding 1024 rows keeps it small, and in the cache that all
/// cores share.
class PackedRows {
  public:
    static constexpr std::int64_t block_rows = 128;
    static constexpr std::int64_t chunk_rows = 1024;

    struct Block {
        std::int64_t begin, rows;         // rows of the matrix
        std::int64_t first_col, end_col;  // columns that are there; first_col is a multiple of 128
        float* values;
        /// [rows][8] from column `col`, a multiple of 8.
        float* panel(std::int64_t col) const { return values + (col - first_col) * rows; }
    };

    PackedRows(MatrixView<const float> matrix, Form form) : matrix_(matrix), form_(form) {}
    /// Packs rows `begin`, a multiple of 128, to the end of the chunk.
    void pack(std::int64_t begin);
    const std::vector<Block>& blocks() const { return blocks_; }

  private:
    void pack_panel(const Block& block, std::int64_t col) const;

    MatrixView<const float> matrix_;
    Form form_;
    std::vector<Block> blocks_;
    ScratchFloats values_;
};

/// columns[j] −= Σ_k factors[k]·panel[k][j] for the 8 columns of a panel.
/// @param factors [size][64]; @param panel [size][8]; @param columns [8][64]
/// @param from_zero the columns' old values do not count
void subtract_product(const float* factors, const float* panel, std::int64_t size, float* columns,
                      bool from_zero = false);

/// out = −in · M (in the given form).
void negative_product(LaneMatrix& in, MatrixView<const float> matrix, Form form, LaneMatrix& out);

}  // namespace fairgptq::lanes
