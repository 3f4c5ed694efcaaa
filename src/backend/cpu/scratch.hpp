// What the CPU's operations of a solve hold beside their arguments.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace fairgptq::cpu {

constexpr std::int64_t slab_rows = 4096;  // rows in lanes at a time: bounds the scratch memory

/// Bytes at once, for `rows` of `cols` columns: two copies of a slab of rows, and packed rows of a square matrix.
constexpr std::size_t solver_scratch(std::int64_t rows, std::int64_t cols) {
    constexpr std::int64_t packed_rows = 1024;
    return static_cast<std::size_t>((2 * std::min(rows, slab_rows) + std::min(cols, packed_rows)) * cols) *
           sizeof(float);
}

}  // namespace fairgptq::cpu
