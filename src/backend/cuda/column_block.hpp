// What a launch of the column loop's kernel works on; column_block.cuh has what it does.
#pragma once

#include "backend/cuda/portable.hpp"

namespace fairgptq::cuda {

constexpr int shrink_steps = 100;  // GPTQ's search: ranges shrunk in steps of 1 %, by less than 80 %
constexpr int shrink_limit = 80;

struct GridRule {
    float largest_code = 15;
    bool symmetric = true;
    bool search = false;      // mean-squared-error search over shrunken ranges (its exponent is 2.4, GPTQ's)
    bool half_scales = true;  // scales rounded to float16
};

struct BlockShape {
    static constexpr int columns = 128;
    static constexpr int run = 16;
    static constexpr int rows = 32;
    static constexpr int parts = 4;  // threads a row
    static constexpr int threads = rows * parts;
    static constexpr int pitch = rows + 1;              // floats from a column of a tile to the next: no bank conflicts
    static constexpr int code_pitch = columns / 4 + 1;  // words of four codes from a row to the next, likewise
    static constexpr int strip_pitch = columns + run;   // floats from a row of R to the next
    static constexpr int candidates = 4;                // shrunken ranges that a thread tries in one pass
    static constexpr int passes = shrink_limit / (parts * candidates);
};
static_assert(BlockShape::passes * BlockShape::parts * BlockShape::candidates == shrink_limit);

enum class InsideScales : std::uint8_t { none, group_start, block_start };

/// One launch: every row's block of columns.
struct ColumnBlock {
    Plain<float> weights;                           // [rows, width], at the block's first column
    Plain<const float> inverse;                     // R [width, width] at the block's place on the diagonal
    const std::int32_t* group_of_column = nullptr;  // at the block's first column
    Plain<std::uint8_t> codes;                      // [rows, width]
    Plain<float> scales;                            // [rows, groups]
    Plain<std::uint8_t> zeros;                      // [rows, groups]
    Plain<float> errors;                            // [rows, width], written
    GridRule rule;
    InsideScales inside = InsideScales::none;  // whether and when the kernel finds scales; else they are there
    int group_size = 0;                        // columns, where it does
};

}  // namespace fairgptq::cuda
