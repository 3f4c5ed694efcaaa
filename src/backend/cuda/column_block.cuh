// The column loop over one block of 128 columns of one tile of 32 rows, kept on chip from its first column to its last.
//
// Two levels of laziness, as on the CPU: a column's error goes at once to the columns of its run of 16, which one
// thread a row holds in registers; a run's errors go to the rest of the block after it; what lies behind the block is
// the caller's matrix product. The order of a row's operations is the CPU's, so a block gives the CPU's numbers.
//
// A run is a chain of dependent instructions in one warp, 16 columns long. So all warps bring the next run's columns up
// to date first, and the rest of the block's while the next run is rounded.
#pragma once

#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include "backend/cuda/grid.cuh"
#include "backend/cuda/group_scales.cuh"

namespace fairgptq::cuda {

/// Of one run, column after column.
struct RunMemory {
    float scale[BlockShape::run * BlockShape::pitch];
    float reciprocal[BlockShape::run * BlockShape::pitch];
    float zero[BlockShape::run * BlockShape::pitch];
    float error[BlockShape::run * BlockShape::pitch];
};

struct BlockMemory {
    alignas(16) float inverse[BlockShape::columns / 2 * BlockShape::strip_pitch];  // strip_of() has its places
    float pivot_reciprocal[BlockShape::columns];                                   // of the diagonal
    std::int32_t group[BlockShape::columns];
    ScaleMemory scales;
    RunMemory runs[2];  // while one is rounded: the errors of the one before, the grids of the one after
    std::uint32_t codes[BlockShape::rows * BlockShape::code_pitch];  // four a word

    __device__ RunMemory& run_of(int column) { return runs[column / BlockShape::run % 2]; }
    /// R's rows begin … begin + 16 from column `begin` on, BlockShape::strip_pitch apart. The first such strip and the
    /// last, the second and the last but one, … stand beside each other, as a square would take 28 KB more.
    __device__ float* strip_of(int begin) {
        constexpr int last = BlockShape::columns - BlockShape::run;
        const bool upper = begin < BlockShape::columns / 2;
        return inverse + (upper ? begin * BlockShape::strip_pitch
                                : (last - begin) * BlockShape::strip_pitch + begin + BlockShape::run);
    }
};

// Two blocks an SM of an A100, and one where an SM has 100 KB (A10, L40); each takes 1 KB for itself.
static_assert(2 * (sizeof(BlockMemory) + 1024) <= 164 * 1024);

/// A thread's place among those that share a task, `parts` of them a row.
template <int parts>
struct Share {
    int part = 0;
    int row = 0;
};

/// R's block on the diagonal, with 1 on the diagonal beyond the last column. Vectors are on their way when it returns.
__device__ inline void load_inverse(int thread, Plain<const float> inverse, BlockMemory& memory) {
    constexpr int columns = BlockShape::columns;
    constexpr int vector = 4;
    const int width = static_cast<int>(inverse.cols);
    const auto place = [&](int row, int col) {
        const int begin = row / BlockShape::run * BlockShape::run;
        return memory.strip_of(begin) + (row - begin) * BlockShape::strip_pitch + col - begin;
    };
    const auto stored = [](int row, int col) { return col >= row / BlockShape::run * BlockShape::run; };
    const bool aligned = reinterpret_cast<std::uintptr_t>(inverse.data) % 16 == 0 && inverse.stride % vector == 0;
    if (width == columns && aligned) {
        for (int at = thread; at < columns * columns / vector; at += BlockShape::threads) {
            const int row = at / (columns / vector);
            const int col = at % (columns / vector) * vector;
            if (stored(row, col)) __pipeline_memcpy_async(place(row, col), inverse.row(row) + col, sizeof(float4));
        }
        __pipeline_commit();
    } else {
        for (int row = 0; row < columns; ++row)  // a thread has a column
            if (stored(row, thread))
                *place(row, thread) =
                    row < width && thread < width ? inverse.row(row)[thread] : (thread == row ? 1.0F : 0.0F);
    }
    memory.pivot_reciprocal[thread] = thread < width ? 1 / inverse.row(thread)[thread] : 1.0F;
}

/// Rounds the 16 columns of a run, a row a thread; leaves their errors and codes. Whatever is stored waits for the end:
/// a store between two columns would keep the loads of the later ones behind it, in the chain.
__device__ inline void quantize_run(int row, int begin, float largest_code, BlockMemory& memory) {
    constexpr int run = BlockShape::run;
    constexpr int pitch = BlockShape::pitch;
    constexpr int codes_per_word = 4;
    float* tile = memory.scales.tile + begin * pitch + row;
    const float* strip = memory.strip_of(begin);
    RunMemory& mine = memory.run_of(begin);
    float value[run];
    float error[run];
    std::uint32_t codes[run / codes_per_word] = {};
#pragma unroll
    for (int i = 0; i < run; ++i)
        value[i] = tile[i * pitch];
#pragma unroll
    for (int i = 0; i < run; ++i) {
        const float* factor = strip + i * BlockShape::strip_pitch;
        const GridPoint point{mine.scale[i * pitch + row], mine.reciprocal[i * pitch + row],
                              mine.zero[i * pitch + row]};
        const Rounded rounded = round_to_grid(value[i], point, largest_code);
        const float difference = value[i] - rounded.value;
        const float reciprocal = memory.pivot_reciprocal[begin + i];
        error[i] = quotient(difference * reciprocal, difference, factor[i], reciprocal);
        value[i] = rounded.value;
        codes[i / codes_per_word] |= static_cast<std::uint32_t>(rounded.code) << (i % codes_per_word * 8U);
#pragma unroll
        for (int j = 0; j < run; ++j)
            if (j > i) value[j] = fmaf(-factor[j], error[i], value[j]);
    }
#pragma unroll
    for (int i = 0; i < run; ++i) {
        tile[i * pitch] = value[i];
        mine.error[i * pitch + row] = error[i];
    }
#pragma unroll
    for (int word = 0; word < run / codes_per_word; ++word)
        memory.codes[row * BlockShape::code_pitch + begin / codes_per_word + word] = codes[word];
}

/// The errors of the run at `begin` spread over columns first … last of the block, `vectors` times four at once.
template <int vectors, int parts>
__device__ void spread_errors(Share<parts> share, int begin, int first, int last, BlockMemory& memory) {
    constexpr int run = BlockShape::run;
    constexpr int pitch = BlockShape::pitch;
    constexpr int vector = 4;
    constexpr int step = parts * vector;  // columns from a thread's vector to its next
    const float* strip = memory.strip_of(begin);
    const float* errors = memory.run_of(begin).error + share.row;
    float* tile = memory.scales.tile + share.row;
    float error[run];
#pragma unroll
    for (int k = 0; k < run; ++k)
        error[k] = errors[k * pitch];
    for (int col = first + share.part * vector; col < last; col += vectors * step) {
        float sum[vectors][vector];
        int place[vectors];
#pragma unroll
        for (int v = 0; v < vectors; ++v) {
            place[v] = col + v * step < last ? col + v * step : col;  // the same once more at the end
#pragma unroll
            for (int j = 0; j < vector; ++j)
                sum[v][j] = tile[(place[v] + j) * pitch];
        }
#pragma unroll
        for (int k = 0; k < run; ++k)
#pragma unroll
            for (int v = 0; v < vectors; ++v) {
                const float* factors = strip + k * BlockShape::strip_pitch + place[v] - begin;
                const float4 loaded = *reinterpret_cast<const float4*>(factors);
                const float factor[vector] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
                for (int j = 0; j < vector; ++j)
                    sum[v][j] = fmaf(-factor[j], error[k], sum[v][j]);
            }
#pragma unroll
        for (int v = 0; v < vectors; ++v)
#pragma unroll
            for (int j = 0; j < vector; ++j)
                tile[(place[v] + j) * pitch] = sum[v][j];
    }
}

/// A thread's share of a run's scales and zeros on their way from device memory, which takes as long as some columns.
template <int parts>
struct RunGrids {
    static constexpr int most = (BlockShape::run + parts - 1) / parts;
    float scale[most];
    std::uint8_t zero[most];

    /// Column of the run; the last one several times if `parts` do not divide a run.
    __device__ static int column(Share<parts> share, int k) {
        const int i = share.part + k * parts;
        return i < BlockShape::run ? i : BlockShape::run - 1;
    }
    /// Where there is no weight, those of the last row or column: nobody reads what becomes of them.
    __device__ void fetch(Share<parts> share, const ColumnBlock& block, std::int64_t first_row, int begin,
                          const BlockMemory& memory) {
        const std::int64_t row = smaller(first_row + share.row, block.weights.rows - 1);
        const float* scales = block.scales.row(row);
        const std::uint8_t* zeros = block.zeros.row(row);
#pragma unroll
        for (int k = 0; k < most; ++k) {
            const std::int32_t group = memory.group[begin + column(share, k)];
            scale[k] = scales[group];
            zero[k] = zeros[group];
        }
    }
    __device__ void keep(Share<parts> share, int begin, BlockMemory& memory) const {
        RunMemory& run = memory.run_of(begin);
#pragma unroll
        for (int k = 0; k < most; ++k) {
            const int at = column(share, k) * BlockShape::pitch + share.row;
            run.scale[at] = scale[k];
            run.reciprocal[at] = 1 / scale[k];
            run.zero[at] = static_cast<float>(zero[k]);
        }
    }
};

/// The errors of the run at `begin` to device memory, half a run of a row by neighbouring threads.
template <int parts>
__device__ void store_errors(Share<parts> share, const ColumnBlock& block, std::int64_t first_row, int begin,
                             BlockMemory& memory) {
    constexpr int step = parts * BlockShape::rows / BlockShape::run;  // rows at once
    const int thread = share.part * BlockShape::rows + share.row;
    const int i = thread % BlockShape::run;
    const auto height = static_cast<int>(smaller(block.errors.rows - first_row, BlockShape::rows));
    if (begin + i >= block.errors.cols) return;
    const float* errors = memory.run_of(begin).error + i * BlockShape::pitch;
    float* to = block.errors.row(first_row) + begin + i;
#pragma unroll
    for (int first = 0; first < BlockShape::rows; first += step) {
        const int row = first + thread / BlockShape::run;
        if (row < height) to[row * block.errors.stride] = errors[row];
    }
}

__device__ inline void store_block(int thread, const ColumnBlock& block, std::int64_t first_row,
                                   const BlockMemory& memory) {
    const auto height = static_cast<int>(smaller(block.weights.rows - first_row, BlockShape::rows));
    if (thread >= block.weights.cols) return;
    const auto* codes = reinterpret_cast<const std::uint8_t*>(memory.codes) + thread;
    for (int row = 0; row < height; ++row) {  // a thread has a column
        block.weights.row(first_row + row)[thread] = memory.scales.tile[thread * BlockShape::pitch + row];
        block.codes.row(first_row + row)[thread] = codes[row * BlockShape::code_pitch * sizeof(std::uint32_t)];
    }
}

/// The whole kernel for tile `tile` of 32 rows.
__device__ inline void quantize_block(BlockMemory& memory, const ColumnBlock& block, std::int64_t tile) {
    constexpr int run = BlockShape::run;
    const auto thread = static_cast<int>(threadIdx.x);
    const Share<BlockShape::parts> all{part_of(thread), row_of(thread)};
    const Share<BlockShape::parts - 1> helpers{part_of(thread) - 1, row_of(thread)};  // all but the warp that rounds
    const std::int64_t first_row = tile * BlockShape::rows;
    const auto width = static_cast<int>(block.weights.cols);
    const int end = static_cast<int>(ceil_div(width, run)) * run;
    const Plain<const float> weights{block.weights.data, block.weights.rows, block.weights.cols, block.weights.stride};
    const auto find = [&](int first) {
        find_group(memory.scales, block.rule, block.group_size, first, first_row, memory.group[first], block.scales,
                   block.zeros, AlreadyLoaded{});
    };
    const auto finds_at = [&](int first) {
        return block.inside == InsideScales::group_start && first % block.group_size == 0;
    };
    load_inverse(thread, block.inverse, memory);
    load_tile(thread, weights, first_row, 0, memory.scales.tile);
    memory.group[thread] = block.group_of_column[smaller(thread, width - 1)];
    __pipeline_wait_prior(0);
    __syncthreads();
    if (block.inside == InsideScales::block_start)
        for (int first = 0; first < width; first += block.group_size)
            find(first);
    for (int begin = 0; begin < end; begin += run) {
        const bool finds = finds_at(begin);
        if (finds) {
            if (begin > 0) spread_errors<2>(all, begin - run, begin, end, memory);
            __syncthreads();
            find(begin);
        } else if (begin > 0) {
            spread_errors<1>(all, begin - run, begin, begin + run, memory);
        }
        if (finds || begin == 0) {
            RunGrids<BlockShape::parts> grids;
            grids.fetch(all, block, first_row, begin, memory);
            grids.keep(all, begin, memory);
        }
        __syncthreads();
        if (part_of(thread) == 0) {
            quantize_run(row_of(thread), begin, block.rule.largest_code, memory);
        } else {
            const int next = begin + run;
            const bool fetches = next < end && !finds_at(next);
            RunGrids<BlockShape::parts - 1> grids;
            if (fetches) grids.fetch(helpers, block, first_row, next, memory);
            if (begin > 0 && !finds) spread_errors<2>(helpers, begin - run, next, end, memory);
            if (begin > 0) store_errors(helpers, block, first_row, begin - run, memory);
            if (fetches) grids.keep(helpers, next, memory);
        }
        __syncthreads();
    }
    store_errors(all, block, first_row, end - run, memory);
    store_block(thread, block, first_row, memory);
}

}  // namespace fairgptq::cuda
