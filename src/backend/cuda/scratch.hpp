// What the GPU's operations of a solve hold beside their arguments; known without a GPU, as a job is planned where none
// is. Each figure has the operation's name (backend.hpp says which of the backend's buffers they share).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/column_walk.hpp"

namespace fairgptq::cuda {

constexpr std::int64_t slab_rows = 4096;       // of shift_target and quadratic_forms
constexpr std::int64_t error_tile_rows = 64;   // of figures that are sums over tiles of rows,
constexpr std::int64_t sum_strip = 512;        // in strips of columns
constexpr std::int64_t inverted_leaf = 64;     // of invert_upper: blocks on the diagonal that one kernel inverts,
constexpr std::int64_t inverted_batch = 512;   // the largest of which a level's products are one batch,
constexpr std::int64_t inverted_strip = 2048;  // and columns at a time of larger ones
constexpr std::int64_t split_least = 512;      // of products: the smallest that are split (products.hpp),
constexpr std::int64_t split_side = 4096;      // rows and columns of a piece of the result,
constexpr std::int64_t split_inner = 2048;     // and its inner size
constexpr std::int64_t factor_panel = 2048;    // columns that factor_upper gives cuSOLVER at once
constexpr std::int64_t shared_least = 6144;    // columns of the smallest factorization that ranks share
constexpr std::int64_t block_rows = 64;        // of fixed_order's blocks (products.hpp): a tile of the solver's rows,
constexpr std::int64_t block_inner = 8192;     // the inner size,
constexpr std::int64_t block_cols = 4096;      // and columns at once
constexpr std::size_t workspace_bytes = std::size_t{32} << 20U;  // cuBLAS's, from the backend's start
/// With a block, which is there once it is needed.
constexpr std::size_t products_bytes =
    workspace_bytes + static_cast<std::size_t>(block_rows * (block_inner + block_cols)) * sizeof(float);

/// Elements of a product that invert_upper holds, at the level that needs most (strips.cpp).
inline std::int64_t inverted_elements(std::int64_t cols) {
    std::int64_t most = 0;
    for (std::int64_t half = inverted_leaf; half < cols; half *= 2) {
        const std::int64_t batched = half <= inverted_batch ? cols / (2 * half) : 0;
        const std::int64_t rest = std::min(half, cols - 2 * half * batched - half);
        most =
            std::max({most, batched * half * half, half * std::min(inverted_strip, std::max<std::int64_t>(rest, 0))});
    }
    return most;
}

/// Elements of both factors' parts, of the largest product: of the weights' rows with a matrix of all columns, of the
/// largest halves that invert_upper puts together, or of pairs' differences with themselves.
inline std::int64_t split_elements(std::int64_t rows, std::int64_t cols, bool covariance) {
    if (cols < split_least) return 0;
    std::int64_t first_rows = covariance ? std::max(rows, cols) : rows;
    for (std::int64_t half = split_least; half + split_least <= cols; half *= 2)
        first_rows = std::max(first_rows, half);
    return 3 * std::min(split_inner, cols) * (std::min(split_side, first_rows) + std::min(split_side, cols));
}

/// Sums over tiles of rows and strips of columns, and over tiles.
inline std::int64_t tile_sums(std::int64_t rows, std::int64_t cols) {
    return ceil_div(rows, error_tile_rows) * (1 + ceil_div(cols, sum_strip));
}

/// Bytes at once, for `rows` of `cols` columns, those of products included; cuSOLVER's workspace is taken to be no
/// larger than a slab of rows.
/// @param group_size columns that share a scale
/// @param covariance whether C is made in the same memory
inline std::size_t solver_scratch(std::int64_t rows, std::int64_t cols, std::int64_t group_size, bool covariance) {
    constexpr std::int64_t real = sizeof(float);
    const std::int64_t wide_group = group_size > BlockShape::columns && group_size < cols ? group_size : 0;
    const std::int64_t slab = std::min(slab_rows, rows) * cols * real;
    const std::int64_t panel_errors = rows * panel_columns(wide_group, cols) * real;
    const std::int64_t inverted = inverted_elements(cols) * real;
    constexpr std::int64_t sum = sizeof(double);
    const std::int64_t column_errors = (ceil_div(rows, error_tile_rows) + 1) * cols * sum;
    const std::int64_t order_and_flags =
        cols * static_cast<std::int64_t>(sizeof(std::int32_t) + 1) + tile_sums(rows, cols) * sum;
    return static_cast<std::size_t>(std::max({slab, panel_errors, inverted}) + std::max(slab, column_errors) +
                                    order_and_flags + split_elements(rows, cols, covariance) * real) +
           products_bytes;
}

}  // namespace fairgptq::cuda
