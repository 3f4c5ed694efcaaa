// A thread takes 64 rows through the whole loop: their columns, transposed, stay in the second-level cache, and R is
// packed once, in the order in which all threads then read it. Two levels of laziness: a column's error goes at once to
// the columns of its run of 16, then from the run to the rest of the block of 128, then from the block to everything
// behind it; the last two are products by the same kernel.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/lanes.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t block = 128;
constexpr std::int64_t run = 16;
constexpr std::int64_t width = 8;  // columns of a packed panel

std::int64_t panels_of(std::int64_t cols) {
    return (cols + width - 1) / width;
}

/// R in blocks of 128 rows; a block holds panels of 8 columns from its diagonal on, and a panel its rows one after the
/// other.
class PackedInverse {
  public:
    explicit PackedInverse(MatrixView<const float> inverse) : n_(inverse.cols) {
        std::size_t total = 0;
        for (std::int64_t begin = 0; begin < n_; begin += block) {
            offsets_.push_back(total);
            total += static_cast<std::size_t>(block_rows(begin) * panels_of(n_ - begin) * width);
        }
        values_.resize(total);
        const auto blocks = static_cast<std::int64_t>(offsets_.size());
        const std::int64_t strips = 8;  // of each block's panels, so that the first, longest block is shared too
#pragma omp parallel for collapse(2) schedule(dynamic)
        for (std::int64_t b = 0; b < blocks; ++b) {
            for (std::int64_t s = 0; s < strips; ++s) {
                const std::int64_t begin = b * block;
                const std::int64_t panels = panels_of(n_ - begin);
                for (std::int64_t p = panels * s / strips; p < panels * (s + 1) / strips; ++p)
                    pack(inverse, begin, p);
            }
        }
    }

    std::int64_t block_rows(std::int64_t begin) const {
        return std::min(block, n_ - begin);
    }
    /// [block_rows][8]: R's rows from `begin`, columns begin + 8·panel ….
    const float* panel(std::int64_t begin, std::int64_t panel) const {
        return values_.data() + offsets_[static_cast<std::size_t>(begin / block)] + panel * block_rows(begin) * width;
    }

  private:
    void pack(MatrixView<const float> inverse, std::int64_t begin, std::int64_t panel) {
        float* to =
            values_.data() + offsets_[static_cast<std::size_t>(begin / block)] + panel * block_rows(begin) * width;
        const std::int64_t first = begin + panel * width;
        const std::int64_t cols = std::min(width, n_ - first);
        for (std::int64_t k = 0; k < block_rows(begin); ++k) {
            const float* row = inverse.row(begin + k) + first;
            for (std::int64_t j = 0; j < width; ++j)
                to[k * width + j] = j < cols ? row[j] : 0;
        }
    }

    std::int64_t n_;
    std::vector<std::size_t> offsets_;
    std::vector<float> values_;
};

/// columns[j] −= Σ_k errors[k]·panel[k][j] for the 8 columns of a panel, 64 lanes each. Half the lanes at a time: 16
/// accumulators, which is what 32 vector registers hold.
void subtract_product(const float* errors, const float* panel, std::int64_t size, float* columns) {
    constexpr std::int64_t half = lanes::count / 2;
    for (std::int64_t offset = 0; offset < lanes::count; offset += half) {
        float sums[width][half];
        for (std::int64_t j = 0; j < width; ++j)
            for (std::int64_t lane = 0; lane < half; ++lane)
                sums[j][lane] = columns[j * lanes::count + offset + lane];
        for (std::int64_t k = 0; k < size; ++k) {
            const float* error = errors + k * lanes::count + offset;
            const float* factors = panel + k * width;
            for (std::int64_t j = 0; j < width; ++j) {
#pragma omp simd
                for (std::int64_t lane = 0; lane < half; ++lane)
                    sums[j][lane] = std::fma(-factors[j], error[lane], sums[j][lane]);
            }
        }
        for (std::int64_t j = 0; j < width; ++j)
            for (std::int64_t lane = 0; lane < half; ++lane)
                columns[j * lanes::count + offset + lane] = sums[j][lane];
    }
}

/// What a thread needs for its 64 rows.
struct Tile {
    std::vector<float> columns;       // [n rounded up to panels][64]
    std::vector<float> errors;        // [128][64]
    std::vector<float> scales;        // [groups][64]
    std::vector<float> zeros;         // [groups][64]
    std::vector<std::uint8_t> codes;  // [n][64]

    Tile(std::int64_t n, std::int64_t groups)
        : columns(static_cast<std::size_t>((panels_of(n) + 1) * width * lanes::count)),
          errors(static_cast<std::size_t>(block * lanes::count)),
          scales(static_cast<std::size_t>(groups * lanes::count)),
          zeros(scales.size()),
          codes(static_cast<std::size_t>(n * lanes::count)) {}
    float* column(std::int64_t i) { return columns.data() + i * lanes::count; }
};

bool starts_group(const ColumnProblem& problem, std::int64_t i) {
    return i == 0 || problem.group_of_column[i] != problem.group_of_column[i - 1];
}

void find_group_scale(const ColumnProblem& problem, std::int64_t i, Tile& tile) {
    const std::int64_t group = problem.group_of_column[i] * lanes::count;
    lanes::find_scale(tile.column(i), problem.grid.group_size, problem.grid, tile.scales.data() + group,
                      tile.zeros.data() + group);
}

/// Rounds columns begin … end, a run inside one block, and leaves their errors; the run's later columns are kept up to
/// date.
void quantize_run(const ColumnProblem& problem, const PackedInverse& inverse, std::int64_t block_begin,
                  std::int64_t begin, std::int64_t end, Tile& tile) {
    const auto largest_code = static_cast<float>((1 << problem.grid.bits) - 1);
    const std::int64_t block_rows = inverse.block_rows(block_begin);
    const auto factor = [&](std::int64_t row, std::int64_t col) {
        const std::int64_t offset = col - block_begin;
        return inverse.panel(block_begin, offset / width)[(row - block_begin) * width + offset % width];
    };
    (void)block_rows;
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t group = problem.group_of_column[i] * lanes::count;
        float* value = tile.column(i);
        float* error = tile.errors.data() + (i - block_begin) * lanes::count;
        float rounded[lanes::count];
        lanes::round_to_grid(value, tile.scales.data() + group, tile.zeros.data() + group, largest_code, rounded,
                             tile.codes.data() + i * lanes::count);
        const float pivot = factor(i, i);
#pragma omp simd
        for (std::int64_t lane = 0; lane < lanes::count; ++lane) {
            error[lane] = (value[lane] - rounded[lane]) / pivot;
            value[lane] = rounded[lane];
        }
        for (std::int64_t j = i + 1; j < end; ++j) {
            float* later = tile.column(j);
            const float weight = factor(i, j);
#pragma omp simd
            for (std::int64_t lane = 0; lane < lanes::count; ++lane)
                later[lane] = std::fma(-weight, error[lane], later[lane]);
        }
    }
}

void quantize_block(const ColumnProblem& problem, const PackedInverse& inverse, std::int64_t block_begin, Tile& tile) {
    const std::int64_t n = problem.weights.cols;
    const std::int64_t block_end = std::min(block_begin + block, n);
    const std::int64_t block_rows = block_end - block_begin;
    if (problem.scale_moment == ScaleMoment::block_start)
        for (std::int64_t i = block_begin; i < block_end; ++i)
            if (starts_group(problem, i)) find_group_scale(problem, i, tile);

    for (std::int64_t begin = block_begin; begin < block_end; begin += run) {
        const std::int64_t end = std::min(begin + run, block_end);
        if (problem.scale_moment == ScaleMoment::group_start && starts_group(problem, begin))
            find_group_scale(problem, begin, tile);
        quantize_run(problem, inverse, block_begin, begin, end, tile);
        // To the rest of the block; a run ends at a panel's end except where the matrix ends.
        for (std::int64_t j = end; j < block_end; j += width)
            subtract_product(tile.errors.data() + (begin - block_begin) * lanes::count,
                             inverse.panel(block_begin, (j - block_begin) / width) + (begin - block_begin) * width,
                             end - begin, tile.column(j));
    }
    for (std::int64_t j = block_end; j < n; j += width)
        subtract_product(tile.errors.data(), inverse.panel(block_begin, (j - block_begin) / width), block_rows,
                         tile.column(j));
}

void check(const ColumnProblem& problem) {
    const std::int64_t n = problem.weights.cols;
    const std::int64_t size = problem.grid.group_size;
    if (problem.inverse.rows != n || problem.inverse.cols != n)
        throw Failure("quantize_columns: {} columns need an inverse of that size, not {} x {}", n, problem.inverse.rows,
                      problem.inverse.cols);
    // Groups that straddle blocks would take their scale from columns that lack the block's updates.
    if (problem.scale_moment != ScaleMoment::given && size != n &&
        (size < run || n % size != 0 || size % run != 0 || (block % size != 0 && size % block != 0)))
        throw Failure("quantize_columns: groups of {} columns do not fit {} columns in blocks of {}", size, n, block);
}

}  // namespace

void CpuBackend::quantize_columns(const ColumnProblem& problem) {
    check(problem);
    const std::int64_t rows = problem.weights.rows;
    const std::int64_t n = problem.weights.cols;
    if (rows == 0 || n == 0) return;
    const std::int64_t groups = problem.scales.cols;
    const PackedInverse inverse(problem.inverse);
#pragma omp parallel
    {
        Tile tile(n, groups);
#pragma omp for schedule(dynamic)
        for (std::int64_t begin = 0; begin < rows; begin += lanes::count) {
            const std::int64_t height = std::min(lanes::count, rows - begin);
            lanes::load(problem.weights.rows_from(begin, height), tile.columns.data());
            if (problem.scale_moment == ScaleMoment::given) {
                std::fill(tile.scales.begin(), tile.scales.end(), 1.0F);
                for (std::int64_t g = 0; g < groups; ++g) {
                    for (std::int64_t r = 0; r < height; ++r) {
                        tile.scales[g * lanes::count + r] = problem.scales(begin + r, g);
                        tile.zeros[g * lanes::count + r] = problem.zeros(begin + r, g);
                    }
                }
            }
            for (std::int64_t b = 0; b < n; b += block)
                quantize_block(problem, inverse, b, tile);

            lanes::store(tile.columns.data(), problem.weights.rows_from(begin, height));
            for (std::int64_t r = 0; r < height; ++r) {
                std::uint8_t* codes = problem.codes.row(begin + r);
                for (std::int64_t i = 0; i < n; ++i)
                    codes[i] = tile.codes[i * lanes::count + r];
                if (problem.scale_moment == ScaleMoment::given) continue;
                for (std::int64_t g = 0; g < groups; ++g) {
                    problem.scales(begin + r, g) = tile.scales[g * lanes::count + r];
                    problem.zeros(begin + r, g) = static_cast<std::uint8_t>(tile.zeros[g * lanes::count + r]);
                }
            }
        }
    }
}

void CpuBackend::find_scales(MatrixView<const float> weights, const Grid& grid, MatrixView<float> scales,
                             MatrixView<std::uint8_t> zeros) {
    const std::int64_t size = grid.group_size;
#pragma omp parallel
    {
        std::vector<float> columns(static_cast<std::size_t>(size * lanes::count));
#pragma omp for collapse(2) schedule(dynamic)
        for (std::int64_t begin = 0; begin < weights.rows; begin += lanes::count) {
            for (std::int64_t g = 0; g < scales.cols; ++g) {
                const std::int64_t height = std::min(lanes::count, weights.rows - begin);
                float scale[lanes::count];
                float zero[lanes::count];
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
