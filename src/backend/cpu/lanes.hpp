// 64 rows of a weight matrix, transposed: column i is 64 neighbouring floats, one a row ("lane"). GPTQ's columns depend
// on each other and its rows do not, so vectors over rows turn every step of the column loop into straight vector code,
// and a row's result cannot depend on the rows beside it.
#pragma once

#include <cstdint>

#include "backend/columns.hpp"

namespace fairgptq::lanes {

constexpr std::int64_t count = 64;

/// rows ≤ 64 rows of a row-major matrix to [columns][64]; lanes beyond `rows` become 0.
void load(MatrixView<const float> rows, float* columns);
/// Back: the first `rows.rows` lanes.
void store(const float* columns, MatrixView<float> rows);

/// Scale and zero of each lane's group, by GPTQ's conventions: the range of the weights widened to hold 0, and made
/// even around 0 in symmetric grids (GPTQ does so only where a weight is negative, and clips a group of positive ones
/// to half its range); an empty range becomes −1 … 1. With ScaleSearch::mse, the best of the ranges shrunk by 0, 1, …
/// 79 % by Σ|error|^2.4. The scale is rounded to the grid's scale type, to the smallest or the largest positive number
/// of that type where it would become 0 or infinite.
/// @param columns [size][64], the group's weights; @param scale, zero [64], written (zeros are whole numbers)
void find_scale(const float* columns, std::int64_t size, const Grid& grid, float* scale, float* zero);

/// value / scale rounded half to even and held to the grid: the dequantized value and the code of each lane.
inline void round_to_grid(const float* value, const float* scale, const float* zero, float largest_code, float* rounded,
                          std::uint8_t* code) {
    // Adding 1.5·2²³ leaves no bits for a fraction: the float unit's own rounding, half to even, as the values here are
    // small.
    constexpr float shifter = 12582912.0F;
#pragma omp simd
    for (std::int64_t lane = 0; lane < count; ++lane) {
        const float low = -zero[lane];
        const float high = largest_code - zero[lane];
        float steps = value[lane] / scale[lane];
        steps = steps > low ? steps : low;
        steps = steps < high ? steps : high;
        steps = (steps + shifter) - shifter;
        rounded[lane] = scale[lane] * steps;
        code[lane] = static_cast<std::uint8_t>(static_cast<std::int32_t>(steps + zero[lane]));
    }
}

}  // namespace fairgptq::lanes
