// What the GPU's operations of a solve hold beside their arguments; known without a GPU, as a job is planned where none
// is. Each figure has the operation's name (backend.hpp says which of the backend's buffers they share).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cuda/column_walk.hpp"

namespace fairgptq::cuda {

constexpr std::int64_t slab_rows = 4096;       // of shift_target and quadratic_forms
constexpr std::int64_t error_tile_rows = 64;   // of column_errors and quadratic_forms
constexpr std::int64_t inverted_leaf = 64;     // of invert_upper: blocks on the diagonal that one kernel inverts,
constexpr std::int64_t inverted_batch = 512;   // the largest of which a level's products are one batch,
constexpr std::int64_t inverted_strip = 2048;  // and columns at a time of larger ones
constexpr std::size_t workspace_bytes = std::size_t{32} << 20U;  // cuBLAS's, from the backend's start

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

/// Bytes at once, for `rows` of `cols` columns, cuBLAS's workspace included; cuSOLVER's is taken to be no larger than a
/// slab of rows.
/// @param group_size columns that share a scale
inline std::size_t solver_scratch(std::int64_t rows, std::int64_t cols, std::int64_t group_size) {
    constexpr std::int64_t real = sizeof(float);
    const std::int64_t wide_group = group_size > BlockShape::columns && group_size < cols ? group_size : 0;
    const std::int64_t slab = std::min(slab_rows, rows) * cols * real;
    const std::int64_t panel_errors = rows * panel_columns(wide_group, cols) * real;
    const std::int64_t inverted = inverted_elements(cols) * real;
    const std::int64_t column_errors =
        ceil_div(rows, error_tile_rows) * cols * static_cast<std::int64_t>(sizeof(double));
    const std::int64_t order_and_flags = cols * static_cast<std::int64_t>(sizeof(std::int32_t) + 1);
    return static_cast<std::size_t>(std::max({slab, panel_errors, inverted}) + std::max(slab, column_errors) +
                                    order_and_flags) +
           workspace_bytes;
}

}  // namespace fairgptq::cuda
