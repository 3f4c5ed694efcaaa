// 64 rows at a time, transposed into lanes, with two levels of laziness: a column's error goes at once to the columns
// of its run of 16, then from the run to the rest of the block of 128, then from the block to everything behind it; the
// last two are products by the same kernel.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/lane_matrix.hpp"
#include "backend/cpu/scratch.hpp"

namespace fairgptq {
namespace {

using lanes::count;
using lanes::LaneMatrix;
using lanes::PackedRows;
using lanes::panel_width;

constexpr std::int64_t run = 16;
using cpu::slab_rows;

/// Rows of a problem in lanes, as they move through the loop.
struct Slab {
    const ColumnProblem& problem;
    LaneMatrix columns, scales, zeros;

    explicit Slab(const ColumnProblem& whole)
        : problem(whole),
          columns(whole.weights.rows, whole.weights.cols),
          scales(whole.weights.rows, whole.scales.cols),
          zeros(whole.weights.rows, whole.scales.cols) {}

    bool starts_group(std::int64_t i) const {
        return i == 0 || problem.group_of_column[i] != problem.group_of_column[i - 1];
    }
    void find_scale(std::int64_t tile, std::int64_t i) {
        const std::int64_t group = problem.group_of_column[i];
        lanes::find_scale(columns.column(tile, i), problem.grid.group_size, problem.grid, scales.column(tile, group),
                          zeros.column(tile, group));
    }
};

/// A thread's scratch: errors and codes of one block of one tile.
struct BlockScratch {
    std::vector<float> errors = std::vector<float>(PackedRows::block_rows * count);
    std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(PackedRows::block_rows * count);
};

/// Rounds columns begin … end of a block, and leaves their errors; columns up to `end` are kept up to date.
void quantize_run(Slab& slab, std::int64_t tile, const PackedRows::Block& block, std::int64_t begin, std::int64_t end,
                  BlockScratch& scratch) {
    const auto largest_code = static_cast<float>((1 << slab.problem.grid.bits) - 1);
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t group = slab.problem.group_of_column[i];
        const std::int64_t row = i - block.begin;
        // R[i, j]: panels hold 8 columns each, counted from the block's diagonal.
        const auto factor = [&](std::int64_t j) {
            const std::int64_t col = j - block.begin;
            return block.panel(j - col % panel_width)[row * panel_width + col % panel_width];
        };
        float* value = slab.columns.column(tile, i);
        float* error = scratch.errors.data() + row * count;
        float rounded[count];
        lanes::round_to_grid(value, slab.scales.column(tile, group), slab.zeros.column(tile, group), largest_code,
                             rounded, scratch.codes.data() + row * count);
        const float pivot = factor(i);
#pragma omp simd
        for (std::int64_t lane = 0; lane < count; ++lane) {
            error[lane] = (value[lane] - rounded[lane]) / pivot;
            value[lane] = rounded[lane];
        }
        for (std::int64_t j = i + 1; j < end; ++j) {
            float* later = slab.columns.column(tile, j);
            const float weight = -factor(j);
#pragma omp simd
            for (std::int64_t lane = 0; lane < count; ++lane)
                later[lane] = std::fma(weight, error[lane], later[lane]);
        }
    }
}

void quantize_block(Slab& slab, std::int64_t tile, const PackedRows::Block& block, BlockScratch& scratch) {
    const ScaleMoment moment = slab.problem.scale_moment;
    const std::int64_t block_end = block.begin + block.rows;
    if (moment == ScaleMoment::block_start)
        for (std::int64_t i = block.begin; i < block_end; ++i)
            if (slab.starts_group(i)) slab.find_scale(tile, i);

    for (std::int64_t begin = block.begin; begin < block_end; begin += run) {
        const std::int64_t end = std::min(begin + run, block_end);
        if (moment == ScaleMoment::group_start && slab.starts_group(begin)) slab.find_scale(tile, begin);
        quantize_run(slab, tile, block, begin, end, scratch);
        const std::int64_t row = begin - block.begin;
        for (std::int64_t j = end; j < block_end; j += panel_width)
            lanes::subtract_product(scratch.errors.data() + row * count, block.panel(j) + row * panel_width,
                                    end - begin, slab.columns.column(tile, j));
    }
    for (std::int64_t j = block_end; j < block.end_col; j += panel_width)
        lanes::subtract_product(scratch.errors.data(), block.panel(j), block.rows, slab.columns.column(tile, j));

    const MatrixView<std::uint8_t> codes = slab.columns.rows_of(slab.problem.codes, tile);
    for (std::int64_t r = 0; r < codes.rows; ++r)
        for (std::int64_t i = 0; i < block.rows; ++i)
            codes(r, block.begin + i) = scratch.codes[i * count + r];
}

void load_tile(Slab& slab, std::int64_t tile) {
    lanes::load(slab.columns.rows_of<const float>(slab.problem.weights, tile), slab.columns.column(tile, 0));
    if (slab.problem.scale_moment != ScaleMoment::given) return;
    const MatrixView<float> scales = slab.columns.rows_of(slab.problem.scales, tile);
    const MatrixView<std::uint8_t> zeros = slab.columns.rows_of(slab.problem.zeros, tile);
    for (std::int64_t g = 0; g < scales.cols; ++g) {
        std::fill_n(slab.scales.column(tile, g), count, 1.0F);
        for (std::int64_t r = 0; r < scales.rows; ++r) {
            slab.scales.column(tile, g)[r] = scales(r, g);
            slab.zeros.column(tile, g)[r] = zeros(r, g);
        }
    }
}

void store_tile(Slab& slab, std::int64_t tile) {
    lanes::store(slab.columns.column(tile, 0), slab.columns.rows_of(slab.problem.weights, tile));
    if (slab.problem.scale_moment == ScaleMoment::given) return;
    const MatrixView<float> scales = slab.columns.rows_of(slab.problem.scales, tile);
    const MatrixView<std::uint8_t> zeros = slab.columns.rows_of(slab.problem.zeros, tile);
    for (std::int64_t g = 0; g < scales.cols; ++g) {
        for (std::int64_t r = 0; r < scales.rows; ++r) {
            scales(r, g) = slab.scales.column(tile, g)[r];
            zeros(r, g) = static_cast<std::uint8_t>(slab.zeros.column(tile, g)[r]);
        }
    }
}

void quantize_slab(const ColumnProblem& problem) {
    const std::int64_t n = problem.weights.cols;
    Slab slab(problem);
    PackedRows inverse(problem.inverse, lanes::Form::upper);
    for (std::int64_t chunk = 0; chunk < n; chunk += PackedRows::chunk_rows) {
        inverse.pack(chunk);
        const bool first = chunk == 0;
        const bool last = chunk + PackedRows::chunk_rows >= n;
#pragma omp parallel
        {
            BlockScratch scratch;
#pragma omp for schedule(dynamic)
            for (std::int64_t tile = 0; tile < slab.columns.tiles(); ++tile) {
                if (first) load_tile(slab, tile);
                for (const PackedRows::Block& block : inverse.blocks())
                    quantize_block(slab, tile, block, scratch);
                if (last) store_tile(slab, tile);
            }
        }
    }
}

void check(const ColumnProblem& problem) {
    const std::int64_t n = problem.weights.cols;
    const std::int64_t size = problem.grid.group_size;
    if (problem.inverse.rows != n || problem.inverse.cols != n)
        throw Failure("quantize_columns: {} columns need an inverse of that size, not {} x {}", n, problem.inverse.rows,
                      problem.inverse.cols);
    // Other groups would begin inside a run, or reach beyond a block into columns that lack its updates.
    const bool fits = size == n || (size > 0 && n % size == 0 && size % run == 0 &&
                                    (PackedRows::block_rows % size == 0 || size % PackedRows::block_rows == 0));
    if (problem.scale_moment != ScaleMoment::given && !fits)
        throw Failure("quantize_columns: groups of {} columns do not fit {} columns in blocks of {}", size, n,
                      PackedRows::block_rows);
}

}  // namespace

void CpuBackend::quantize_columns(const ColumnProblem& problem) {
    check(problem);
    if (problem.weights.cols == 0) return;
    for (std::int64_t begin = 0; begin < problem.weights.rows; begin += slab_rows) {
        const std::int64_t rows = std::min(slab_rows, problem.weights.rows - begin);
        ColumnProblem part = problem;
        part.weights = problem.weights.rows_from(begin, rows);
        part.codes = problem.codes.rows_from(begin, rows);
        part.scales = problem.scales.rows_from(begin, rows);
        part.zeros = problem.zeros.rows_from(begin, rows);
        quantize_slab(part);
    }
}

void CpuBackend::find_scales(MatrixView<const float> weights, const Grid& grid, MatrixView<float> scales,
                             MatrixView<std::uint8_t> zeros) {
    const std::int64_t size = grid.group_size;
    if (size < 1 || scales.cols * size != weights.cols)
        throw Failure("find_scales: {} groups of {} columns are not {} columns", scales.cols, size, weights.cols);
#pragma omp parallel
    {
        std::vector<float> columns(static_cast<std::size_t>(size * count));
#pragma omp for collapse(2) schedule(dynamic)
        for (std::int64_t begin = 0; begin < weights.rows; begin += count) {
            for (std::int64_t g = 0; g < scales.cols; ++g) {
                const std::int64_t height = std::min(count, weights.rows - begin);
                float scale[count];
                float zero[count];
                lanes::load(weights.block(begin, g * size, height, size), columns.data());
                lanes::find_scale(columns.data(), size, grid, scale, zero);
                for (std::int64_t r = 0; r < height; ++r) {
                    scales(begin + r, g) = scale[r];
                    zeros(begin + r, g) = static_cast<std::uint8_t>(zero[r]);
                }
            }
        }
    }
}

}  // namespace fairgptq
