#include "backend/cpu/lane_matrix.hpp"

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#elif defined(__SANITIZE_THREAD__)
extern "C" void __tsan_read_range(void* begin, unsigned long bytes);  // of the sanitizer's own, in none of its headers
extern "C" void __tsan_write_range(void* begin, unsigned long bytes);
#endif

#include <algorithm>
#include <cmath>

namespace fairgptq::lanes {
namespace {

// Sanitizers check each access to the sums, which nobody could get wrong, and take two thirds of a test's time for it.
// What a product reads and writes is checked as a whole instead. (Into a function without checks GCC inlines none with
// them, such as std::fma.)
#ifdef __SANITIZE_ADDRESS__
#define FAIRGPTQ_SUMS_UNCHECKED __attribute__((no_sanitize("address", "undefined")))
void reads(const float* begin, std::int64_t floats) {
    void* const poisoned =
        __asan_region_is_poisoned(const_cast<float*>(begin), static_cast<std::size_t>(floats) * sizeof(float));
    if (poisoned != nullptr) (void)*static_cast<volatile const char*>(poisoned);  // reports and ends
}
void writes(float* begin, std::int64_t floats) {
    reads(begin, floats);
}
#elif defined(__SANITIZE_THREAD__)
#define FAIRGPTQ_SUMS_UNCHECKED __attribute__((no_sanitize("thread")))
void reads(const float* begin, std::int64_t floats) {
    __tsan_read_range(const_cast<float*>(begin), static_cast<unsigned long>(floats) * sizeof(float));
}
void writes(float* begin, std::int64_t floats) {
    __tsan_write_range(begin, static_cast<unsigned long>(floats) * sizeof(float));
}
#else
#define FAIRGPTQ_SUMS_UNCHECKED
void reads(const float*, std::int64_t) {}
void writes(float*, std::int64_t) {}
#endif

void check_operands(const float* factors, const float* panel, std::int64_t size, float* columns) {
    reads(factors, size * count);
    reads(panel, size * panel_width);
    writes(columns, panel_width * count);
}

}  // namespace

void PackedRows::pack(std::int64_t begin) {
    const std::int64_t n = matrix_.cols;
    blocks_.clear();
    std::int64_t total = 0;
    for (std::int64_t row = begin; row < std::min(begin + chunk_rows, n); row += block_rows) {
        const std::int64_t rows = std::min(block_rows, n - row);
        const bool from_diagonal = form_ == Form::upper || form_ == Form::doubled_triangle;
        const std::int64_t first = from_diagonal ? row : 0;
        const std::int64_t end = form_ == Form::upper_transposed ? row + rows : n;
        blocks_.push_back({row, rows, first, end, nullptr});
        total += rows * ((end - first + panel_width - 1) / panel_width * panel_width);
    }
    if (values_.size() < static_cast<std::size_t>(total)) values_ = ScratchFloats(static_cast<std::size_t>(total));
    float* values = values_.data();
    for (Block& block : blocks_) {
        block.values = values;
        values += block.rows * ((block.end_col - block.first_col + panel_width - 1) / panel_width * panel_width);
    }
    constexpr std::int64_t strip = 32 * panel_width;
    const auto count_of_blocks = static_cast<std::int64_t>(blocks_.size());
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (std::int64_t b = 0; b < count_of_blocks; ++b) {
        for (std::int64_t s = 0; s < n; s += strip) {
            const Block& block = blocks_[static_cast<std::size_t>(b)];
            const std::int64_t end = std::min(block.first_col + s + strip, block.end_col);
            for (std::int64_t col = block.first_col + s; col < end; col += panel_width)
                pack_panel(block, col);
        }
    }
}

void PackedRows::pack_panel(const Block& block, std::int64_t col) const {
    float* to = block.panel(col);
    const std::int64_t cols = std::min(panel_width, block.end_col - col);
    if (cols < panel_width) std::fill(to, to + block.rows * panel_width, 0.0F);
    if (form_ == Form::upper_transposed) {
        for (std::int64_t j = 0; j < cols; ++j)
            for (std::int64_t k = 0; k < block.rows; ++k)
                to[k * panel_width + j] = block.begin + k >= col + j ? matrix_(col + j, block.begin + k) : 0;
        return;
    }
    for (std::int64_t k = 0; k < block.rows; ++k) {
        const float* from = matrix_.row(block.begin + k) + col;
        const std::int64_t diagonal = block.begin + k - col;  // j of the diagonal element
        float* row = to + k * panel_width;
        if (form_ == Form::square || diagonal <= 0) {
            const float factor = form_ == Form::doubled_triangle ? 2 : 1;
            for (std::int64_t j = 0; j < cols; ++j)
                row[j] = factor * from[j];
            if (form_ == Form::doubled_triangle && diagonal == 0) row[0] = from[0];
        } else {
            const float factor = form_ == Form::doubled_triangle ? 2 : 1;
            for (std::int64_t j = 0; j < cols; ++j)
                row[j] = j < diagonal ? 0 : j == diagonal ? from[j] : factor * from[j];
        }
    }
}

// Half the lanes at a time: 16 vector accumulators of 16 lanes, so that each loaded number is used many times.
#ifdef __AVX512F__
FAIRGPTQ_SUMS_UNCHECKED void subtract_product(const float* factors, const float* panel, std::int64_t size,
                                              float* columns, bool from_zero) {
    check_operands(factors, panel, size, columns);
    constexpr std::int64_t lanes_per_vector = 16;
    for (std::int64_t offset = 0; offset < count; offset += 2 * lanes_per_vector) {
        __m512 sums[panel_width][2];
        for (std::int64_t j = 0; j < panel_width; ++j) {
            const float* column = columns + j * count + offset;
            sums[j][0] = from_zero ? _mm512_setzero_ps() : _mm512_loadu_ps(column);
            sums[j][1] = from_zero ? _mm512_setzero_ps() : _mm512_loadu_ps(column + lanes_per_vector);
        }
        for (std::int64_t k = 0; k < size; ++k) {
            const __m512 first = _mm512_loadu_ps(factors + k * count + offset);
            const __m512 second = _mm512_loadu_ps(factors + k * count + offset + lanes_per_vector);
            _mm_prefetch(panel + (size + k) * panel_width, _MM_HINT_T0);  // the next panel, on another page
            for (std::int64_t j = 0; j < panel_width; ++j) {
                const __m512 factor = _mm512_set1_ps(panel[k * panel_width + j]);
                sums[j][0] = _mm512_fnmadd_ps(factor, first, sums[j][0]);
                sums[j][1] = _mm512_fnmadd_ps(factor, second, sums[j][1]);
            }
        }
        for (std::int64_t j = 0; j < panel_width; ++j) {
            _mm512_storeu_ps(columns + j * count + offset, sums[j][0]);
            _mm512_storeu_ps(columns + j * count + offset + lanes_per_vector, sums[j][1]);
        }
    }
}
#elif defined(__AVX2__) && defined(__FMA__)
// 8 accumulators of 8 lanes: twice as many, which 16 lanes would take, leave no register for what they multiply.
FAIRGPTQ_SUMS_UNCHECKED void subtract_product(const float* factors, const float* panel, std::int64_t size,
                                              float* columns, bool from_zero) {
    check_operands(factors, panel, size, columns);
    constexpr std::int64_t lanes_per_vector = 8;
    for (std::int64_t offset = 0; offset < count; offset += lanes_per_vector) {
        __m256 sums[panel_width];
        for (std::int64_t j = 0; j < panel_width; ++j)
            sums[j] = from_zero ? _mm256_setzero_ps() : _mm256_loadu_ps(columns + j * count + offset);
        for (std::int64_t k = 0; k < size; ++k) {
            const __m256 lanes = _mm256_loadu_ps(factors + k * count + offset);
            for (std::int64_t j = 0; j < panel_width; ++j)
                sums[j] = _mm256_fnmadd_ps(_mm256_broadcast_ss(panel + k * panel_width + j), lanes, sums[j]);
        }
        for (std::int64_t j = 0; j < panel_width; ++j)
            _mm256_storeu_ps(columns + j * count + offset, sums[j]);
    }
}
#else
FAIRGPTQ_SUMS_UNCHECKED void subtract_product(const float* factors, const float* panel, std::int64_t size,
                                              float* columns, bool from_zero) {
    check_operands(factors, panel, size, columns);
    constexpr std::int64_t part = 16;
    for (std::int64_t offset = 0; offset < count; offset += part) {
        float sums[panel_width][part];
        for (std::int64_t j = 0; j < panel_width; ++j)
            for (std::int64_t lane = 0; lane < part; ++lane)
                sums[j][lane] = from_zero ? 0 : columns[j * count + offset + lane];
        for (std::int64_t k = 0; k < size; ++k) {
            const float* first = factors + k * count + offset;
            for (std::int64_t j = 0; j < panel_width; ++j) {
                const float factor = -panel[k * panel_width + j];
#pragma omp simd
                for (std::int64_t lane = 0; lane < part; ++lane)
                    sums[j][lane] = ::fmaf(factor, first[lane], sums[j][lane]);
            }
        }
        for (std::int64_t j = 0; j < panel_width; ++j)
            for (std::int64_t lane = 0; lane < part; ++lane)
                columns[j * count + offset + lane] = sums[j][lane];
    }
}
#endif

void negative_product(LaneMatrix& in, MatrixView<const float> matrix, Form form, LaneMatrix& out) {
    PackedRows packed(matrix, form);
    for (std::int64_t chunk = 0; chunk < matrix.rows; chunk += PackedRows::chunk_rows) {
        packed.pack(chunk);
#pragma omp parallel for schedule(dynamic)
        for (std::int64_t tile = 0; tile < in.tiles(); ++tile) {
            for (const PackedRows::Block& block : packed.blocks()) {
                // The block that reaches a column first: the topmost, or the one on its diagonal.
                const std::int64_t new_from = form == Form::upper_transposed ? block.begin
                                              : block.begin == 0             ? 0
                                                                             : block.end_col;
                for (std::int64_t col = block.first_col; col < block.end_col; col += panel_width)
                    subtract_product(in.column(tile, block.begin), block.panel(col), block.rows, out.column(tile, col),
                                     col >= new_from);
            }
        }
    }
}

}  // namespace fairgptq::lanes
