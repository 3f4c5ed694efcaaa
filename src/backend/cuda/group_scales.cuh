// Scales and zeros of groups of columns, found by a block of threads for one tile of 32 rows: the group's range, and
// with a search the best of 80 shrunken ones, four threads a row.
#pragma once

#include <cuda_runtime.h>

#include "backend/cuda/grid.cuh"

namespace fairgptq::cuda {

/// On-chip memory of a scale search over a tile of weights.
struct ScaleMemory {
    float tile[BlockShape::columns * BlockShape::pitch];  // column after column
    Range range[BlockShape::threads];
    float error[BlockShape::candidates * BlockShape::threads];
    float best_error[BlockShape::threads];
    std::int32_t best_step[BlockShape::threads];
};

__device__ inline int row_of(int thread) {
    return thread % BlockShape::rows;
}
__device__ inline int part_of(int thread) {
    return thread / BlockShape::rows;
}

/// tile = rows first_row … of `matrix`, columns first_col … first_col + BlockShape::columns; 0 where there are none.
__device__ inline void load_tile(int thread, Plain<const float> matrix, std::int64_t first_row, std::int64_t first_col,
                                 float* tile) {
    const auto height = static_cast<int>(smaller(matrix.rows - first_row, BlockShape::rows));
    const auto width = static_cast<int>(smaller(matrix.cols - first_col, BlockShape::columns));
    // A thread has a column: neighbours in a row are read together, and written to banks of their own.
    const float* from = matrix.row(first_row) + first_col + thread;
#pragma unroll
    for (int row = 0; row < BlockShape::rows; ++row)
        tile[thread * BlockShape::pitch + row] = row < height && thread < width ? from[row * matrix.stride] : 0;
}
static_assert(BlockShape::threads == BlockShape::columns);

/// Of a row's weights, of which each of its threads has seen some.
__device__ inline Range range_of_row(int row, const ScaleMemory& memory) {
    Range range;
    for (int thread = row; thread < BlockShape::threads; thread += BlockShape::rows) {
        range.include(memory.range[thread].low);
        range.include(memory.range[thread].high);
    }
    return range;
}

/// Σ|rounding error|^2.4 of columns begin … end of a thread's row, added to its candidates' sums.
__device__ inline void try_candidates(int thread, int pass, const GridRule& rule, int begin, int end,
                                      ScaleMemory& memory) {
    constexpr int count = BlockShape::candidates;
    const Range range = usable(range_of_row(row_of(thread), memory), rule);
    GridPoint point[count];
    float error[count];
#pragma unroll
    for (int c = 0; c < count; ++c) {
        point[c] = grid_of(range, (pass * BlockShape::parts + part_of(thread)) * count + c, rule);
        error[c] = memory.error[c * BlockShape::threads + thread];
    }
    for (int col = begin; col < end; ++col) {
        const float value = memory.tile[col * BlockShape::pitch + row_of(thread)];
#pragma unroll
        for (int c = 0; c < count; ++c)
            error[c] += power_2_4(round_to_grid(value, point[c], rule.largest_code).value - value);
    }
#pragma unroll
    for (int c = 0; c < count; ++c)
        memory.error[c * BlockShape::threads + thread] = error[c];
}

__device__ inline void keep_best(int thread, int pass, ScaleMemory& memory) {
    for (int c = 0; c < BlockShape::candidates; ++c) {
        const float error = memory.error[c * BlockShape::threads + thread];
        if (error < memory.best_error[thread]) {
            memory.best_error[thread] = error;
            memory.best_step[thread] = (pass * BlockShape::parts + part_of(thread)) * BlockShape::candidates + c;
        }
        memory.error[c * BlockShape::threads + thread] = 0;
    }
}

/// The best step of a row's threads: the smallest error, and of equal ones the smallest step.
__device__ inline int best_step(int row, const ScaleMemory& memory) {
    int best = row;
    for (int thread = row + BlockShape::rows; thread < BlockShape::threads; thread += BlockShape::rows) {
        const bool smaller_error = memory.best_error[thread] < memory.best_error[best];
        const bool earlier =
            memory.best_error[thread] == memory.best_error[best] && memory.best_step[thread] < memory.best_step[best];
        if (smaller_error || earlier) best = thread;
    }
    return memory.best_step[best];
}

/// Scale and zero of one group of `size` columns in chunks of at most 128. All threads of a block call it together.
/// @param load (chunk) brings this thread's share of a chunk into memory.tile; a group inside a block is there already
/// @param first its first column in the tile
template <class Load>
__device__ void find_group(ScaleMemory& memory, const GridRule& rule, std::int64_t size, int first,
                           std::int64_t first_row, std::int64_t group, Plain<float> scales, Plain<std::uint8_t> zeros,
                           const Load& load) {
    const auto thread = static_cast<int>(threadIdx.x);
    const std::int64_t chunks = ceil_div(size, BlockShape::columns);
    const auto end_of = [&](std::int64_t chunk) {
        return first + static_cast<int>(smaller(size - chunk * BlockShape::columns, BlockShape::columns));
    };
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        load(chunk);
        Range range = chunk == 0 ? Range{} : memory.range[thread];
        for (int col = first + part_of(thread); col < end_of(chunk); col += BlockShape::parts)
            range.include(memory.tile[col * BlockShape::pitch + row_of(thread)]);
        memory.range[thread] = range;
        __syncthreads();
    }
    if (rule.search) {
        memory.best_error[thread] = largest_float;
        memory.best_step[thread] = part_of(thread) == 0 ? 0 : part_of(thread) * BlockShape::candidates;
        for (int c = 0; c < BlockShape::candidates; ++c)
            memory.error[c * BlockShape::threads + thread] = 0;
        for (int pass = 0; pass < BlockShape::passes; ++pass) {
            for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
                load(chunk);
                try_candidates(thread, pass, rule, first, end_of(chunk), memory);
                if (Load::overwrites) __syncthreads();
            }
            keep_best(thread, pass, memory);
        }
        __syncthreads();
    }
    if (part_of(thread) == 0 && first_row + thread < scales.rows) {
        const int step = rule.search ? best_step(thread, memory) : 0;
        const GridPoint point = grid_of(usable(range_of_row(thread, memory), rule), step, rule);
        scales.row(first_row + thread)[group] = point.scale;
        zeros.row(first_row + thread)[group] = static_cast<std::uint8_t>(point.zero);
    }
    __syncthreads();
}

/// A group's columns from device memory.
struct LoadChunk {
    static constexpr bool overwrites = true;
    Plain<const float> group;  // [rows, size]
    std::int64_t first_row;
    float* tile;

    __device__ void operator()(std::int64_t chunk) const {
        load_tile(static_cast<int>(threadIdx.x), group, first_row, chunk * BlockShape::columns, tile);
        __syncthreads();
    }
};
struct AlreadyLoaded {
    static constexpr bool overwrites = false;
    __device__ void operator()(std::int64_t /*chunk*/) const {}
};

/// Scale and zero of one group of one tile of rows: `weights` holds the group's columns alone.
__device__ inline void find_group_scales(ScaleMemory& memory, Plain<const float> weights, const GridRule& rule,
                                         std::int64_t tile, std::int64_t group, Plain<float> scales,
                                         Plain<std::uint8_t> zeros) {
    const std::int64_t first_row = tile * BlockShape::rows;
    find_group(memory, rule, weights.cols, 0, first_row, group, scales, zeros,
               LoadChunk{weights, first_row, memory.tile});
}

}  // namespace fairgptq::cuda
