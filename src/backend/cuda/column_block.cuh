// The column loop over one block of 128 columns of one tile of 32 rows, kept on chip from its first column to its last.
//
// Two levels of laziness, as on the CPU: a column's error goes at once to the columns of its run of 16, which one
// thread a row holds in registers; after a run, all 128 threads (four a row) bring the rest of the block up to date;
// what lies behind the block is the caller's matrix product. The order of a row's operations is the CPU's, so a block
// gives the CPU's numbers.
#pragma once

#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include "backend/cuda/grid.cuh"

namespace fairgptq::cuda {

/// On-chip memory of a scale search over a tile of weights.
struct ScaleMemory {
    float tile[BlockShape::columns * BlockShape::pitch];  // column after column
    Range range[BlockShape::rows];
    float error[BlockShape::candidates * BlockShape::threads];
    float best_error[BlockShape::threads];
    std::int32_t best_step[BlockShape::threads];
};

struct BlockMemory {
    alignas(16) float inverse[BlockShape::columns * BlockShape::columns];  // the lower triangle is never read
    ScaleMemory scales;
    float errors[BlockShape::run * BlockShape::pitch];
    float run_scale[BlockShape::run * BlockShape::pitch];
    float run_zero[BlockShape::run * BlockShape::pitch];
    std::uint8_t codes[BlockShape::rows * BlockShape::code_pitch];
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

/// Σ|rounding error|^2.4 of columns begin … end of a thread's row, added to its candidates' sums.
__device__ inline void try_candidates(int thread, int pass, const GridRule& rule, int begin, int end,
                                      ScaleMemory& memory) {
    constexpr int count = BlockShape::candidates;
    const Range range = usable(memory.range[row_of(thread)], rule);
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
    constexpr float infinity = 0x1.fffffep+127F;
    const auto thread = static_cast<int>(threadIdx.x);
    const std::int64_t chunks = ceil_div(size, BlockShape::columns);
    const auto end_of = [&](std::int64_t chunk) {
        return first + static_cast<int>(smaller(size - chunk * BlockShape::columns, BlockShape::columns));
    };
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        load(chunk);
        if (part_of(thread) == 0) {
            Range range = chunk == 0 ? Range{} : memory.range[thread];
            for (int col = first; col < end_of(chunk); ++col)
                range.include(memory.tile[col * BlockShape::pitch + thread]);
            memory.range[thread] = range;
        }
        __syncthreads();
    }
    if (rule.search) {
        memory.best_error[thread] = infinity;
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
        const GridPoint point = grid_of(usable(memory.range[thread], rule), step, rule);
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

/// R's block on the diagonal: its upper triangle at least, with 1 on the diagonal beyond the last column.
__device__ inline void load_inverse(int thread, Plain<const float> inverse, float* to) {
    constexpr int columns = BlockShape::columns;
    const int width = static_cast<int>(inverse.cols);
    constexpr int vector = 4;
    const bool aligned = reinterpret_cast<std::uintptr_t>(inverse.data) % 16 == 0 && inverse.stride % vector == 0;
    if (width == columns && aligned) {
        for (int at = thread; at < columns * columns / vector; at += BlockShape::threads) {
            const int row = at / (columns / vector);
            const int col = at % (columns / vector) * vector;
            if (col + vector > row)
                __pipeline_memcpy_async(to + row * columns + col, inverse.row(row) + col, sizeof(float4));
        }
        __pipeline_commit();
        __pipeline_wait_prior(0);
        return;
    }
    for (int row = 0; row < columns; ++row)  // a thread has a column
        if (thread >= row)
            to[row * columns + thread] = thread < width ? inverse.row(row)[thread] : thread == row ? 1.0F : 0.0F;
}

/// Rounds the 16 columns of a run, a row a thread; leaves their errors and codes.
__device__ inline void quantize_run(int row, int begin, float largest_code, BlockMemory& memory) {
    constexpr int run = BlockShape::run;
    constexpr int pitch = BlockShape::pitch;
    float* tile = memory.scales.tile + begin * pitch + row;
    const float* inverse = memory.inverse + begin * BlockShape::columns + begin;
    float value[run];
#pragma unroll
    for (int i = 0; i < run; ++i)
        value[i] = tile[i * pitch];
#pragma unroll
    for (int i = 0; i < run; ++i) {
        const GridPoint point{memory.run_scale[i * pitch + row], memory.run_zero[i * pitch + row]};
        const Rounded rounded = round_to_grid(value[i], point, largest_code);
        const float error = (value[i] - rounded.value) / inverse[i * BlockShape::columns + i];
        tile[i * pitch] = rounded.value;
        memory.errors[i * pitch + row] = error;
        memory.codes[row * BlockShape::code_pitch + begin + i] = rounded.code;
#pragma unroll
        for (int j = 0; j < run; ++j)
            if (j > i) value[j] = fmaf(-inverse[i * BlockShape::columns + j], error, value[j]);
    }
}

/// The run's errors spread over the columns of the block behind it, four columns at a time.
__device__ inline void spread_errors(int thread, int begin, int end, BlockMemory& memory) {
    constexpr int run = BlockShape::run;
    constexpr int pitch = BlockShape::pitch;
    constexpr int vector = 4;
    const int row = row_of(thread);
    float error[run];
#pragma unroll
    for (int k = 0; k < run; ++k)
        error[k] = memory.errors[k * pitch + row];
    for (int col = begin + run + part_of(thread) * vector; col < end; col += BlockShape::parts * vector) {
        float* tile = memory.scales.tile + col * pitch + row;
        float sum[vector];
#pragma unroll
        for (int j = 0; j < vector; ++j)
            sum[j] = tile[j * pitch];
#pragma unroll
        for (int k = 0; k < run; ++k) {
            const float* factors = memory.inverse + (begin + k) * BlockShape::columns + col;
            const float4 loaded = *reinterpret_cast<const float4*>(factors);
            const float factor[vector] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
            for (int j = 0; j < vector; ++j)
                sum[j] = fmaf(-factor[j], error[k], sum[j]);
        }
#pragma unroll
        for (int j = 0; j < vector; ++j)
            tile[j * pitch] = sum[j];
    }
}

/// Scales and zeros of a run's columns for the tile's rows, from device memory; 1 and 0 where there is no weight.
__device__ inline void load_run_grids(int thread, const ColumnBlock& block, std::int64_t first_row, int begin,
                                      BlockMemory& memory) {
    const int row = row_of(thread);
    for (int i = part_of(thread); i < BlockShape::run; i += BlockShape::parts) {
        GridPoint point;
        if (begin + i < block.weights.cols && first_row + row < block.weights.rows) {
            const std::int32_t group = block.group_of_column[begin + i];
            point.scale = block.scales.row(first_row + row)[group];
            point.zero = static_cast<float>(block.zeros.row(first_row + row)[group]);
        }
        memory.run_scale[i * BlockShape::pitch + row] = point.scale;
        memory.run_zero[i * BlockShape::pitch + row] = point.zero;
    }
}

/// errors[first_row …][begin … begin + 16], half a run of a row by neighbouring threads.
__device__ inline void store_errors(int thread, const ColumnBlock& block, std::int64_t first_row, int begin,
                                    const BlockMemory& memory) {
    for (int at = thread; at < BlockShape::rows * BlockShape::run; at += BlockShape::threads) {
        const int row = at / BlockShape::run;
        const int i = at % BlockShape::run;
        if (first_row + row < block.errors.rows && begin + i < block.errors.cols)
            block.errors.row(first_row + row)[begin + i] = memory.errors[i * BlockShape::pitch + row];
    }
}

__device__ inline void store_block(int thread, const ColumnBlock& block, std::int64_t first_row,
                                   const BlockMemory& memory) {
    const auto height = static_cast<int>(smaller(block.weights.rows - first_row, BlockShape::rows));
    if (thread >= block.weights.cols) return;
    for (int row = 0; row < height; ++row) {  // a thread has a column
        block.weights.row(first_row + row)[thread] = memory.scales.tile[thread * BlockShape::pitch + row];
        block.codes.row(first_row + row)[thread] = memory.codes[row * BlockShape::code_pitch + thread];
    }
}

/// The whole kernel for tile `tile` of 32 rows.
__device__ inline void quantize_block(BlockMemory& memory, const ColumnBlock& block, std::int64_t tile) {
    const auto thread = static_cast<int>(threadIdx.x);
    const std::int64_t first_row = tile * BlockShape::rows;
    const auto width = static_cast<int>(block.weights.cols);
    const int end = static_cast<int>(ceil_div(width, BlockShape::run)) * BlockShape::run;
    const Plain<const float> weights{block.weights.data, block.weights.rows, block.weights.cols, block.weights.stride};
    const auto find = [&](int first) {
        find_group(memory.scales, block.rule, block.group_size, first, first_row, block.group_of_column[first],
                   block.scales, block.zeros, AlreadyLoaded{});
    };
    load_tile(thread, weights, first_row, 0, memory.scales.tile);
    load_inverse(thread, block.inverse, memory.inverse);
    __syncthreads();
    if (block.inside == InsideScales::block_start)
        for (int first = 0; first < width; first += block.group_size)
            find(first);
    for (int begin = 0; begin < end; begin += BlockShape::run) {
        if (block.inside == InsideScales::group_start && begin % block.group_size == 0) find(begin);
        load_run_grids(thread, block, first_row, begin, memory);
        __syncthreads();
        if (part_of(thread) == 0) quantize_run(row_of(thread), begin, block.rule.largest_code, memory);
        __syncthreads();
        spread_errors(thread, begin, end, memory);
        store_errors(thread, block, first_row, begin, memory);
        __syncthreads();
    }
    store_block(thread, block, first_row, memory);
}

}  // namespace fairgptq::cuda
