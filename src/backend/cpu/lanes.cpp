#include "backend/cpu/lanes.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

namespace fairgptq::lanes {
namespace {

constexpr int shrink_steps = 100;  // GPTQ's search: ranges shrunk in steps of 1 %, by less than 80 %
constexpr int shrink_limit = 80;

void round_scale(ScaleType type, float* scale) {
    const float smallest = type == ScaleType::float16 ? 0x1p-24F : std::numeric_limits<float>::min();
    const float largest = type == ScaleType::float16 ? 65504.0F : std::numeric_limits<float>::max();
    for (std::int64_t lane = 0; lane < count; ++lane) {
        const float rounded = type == ScaleType::float16 ? to_float(to_half(scale[lane])) : scale[lane];
        scale[lane] = std::clamp(rounded, smallest, largest);
    }
}

constexpr std::int64_t vector = 16;

using Vector = float __attribute__((vector_size(vector * sizeof(float))));

/// Exchanges halves between rows `distance` apart: column c of the upper row's is c, of the lower row's 16 + c.
template <int distance, int... column>
inline void exchange(Vector* rows, std::integer_sequence<int, column...>) {
    for (std::int64_t i = 0; i < vector; ++i) {
        if ((i & distance) != 0) continue;
        const Vector upper = rows[i];
        const Vector lower = rows[i + distance];
        rows[i] = __builtin_shufflevector(upper, lower, (column & distance ? vector + column - distance : column)...);
        rows[i + distance] =
            __builtin_shufflevector(upper, lower, (column & distance ? vector + column : column + distance)...);
    }
}

/// out[j][i] = in[i][j], 16 x 16: in four steps of exchanging halves between rows 8, 4, 2 and 1 apart, which the
/// compiler turns into shuffles of whole vectors.
void transpose(const float* in, std::int64_t in_stride, float* out, std::int64_t out_stride) {
    Vector rows[vector];
    for (std::int64_t i = 0; i < vector; ++i)
        std::memcpy(&rows[i], in + i * in_stride, sizeof(Vector));
    constexpr auto columns = std::make_integer_sequence<int, vector>();
    exchange<8>(rows, columns);
    exchange<4>(rows, columns);
    exchange<2>(rows, columns);
    exchange<1>(rows, columns);
    for (std::int64_t i = 0; i < vector; ++i)
        std::memcpy(out + i * out_stride, &rows[i], sizeof(Vector));
}

/// |x|^2.4 = x²·(x²)^0.2, the fifth root by Newton's method from a first guess made of the exponent's bits.
inline float power_2_4(float x) {
    const float square = x * x + std::numeric_limits<float>::min();
    // y → square^(−1/5): bits(y) ≈ 6/5·bits(1) − bits(square)/5.
    const auto guess =
        static_cast<std::int32_t>(1.2781E9F - 0.2F * static_cast<float>(std::bit_cast<std::int32_t>(square)));
    float y = std::bit_cast<float>(guess);
    for (int step = 0; step < 3; ++step) {
        const float y2 = y * y;
        y = y * (1.2F - 0.2F * square * (y2 * y2 * y));
    }
    const float y2 = y * y;
    return square * square * (y2 * y2);
}

/// Σ|rounding error|^2.4 of each lane.
void grid_errors(const float* columns, std::int64_t size, float largest_code, const float* scale, const float* zero,
                 float* errors) {
    std::fill(errors, errors + count, 0.0F);
    float rounded[count];
    std::uint8_t codes[count];
    for (std::int64_t i = 0; i < size; ++i) {
        const float* value = columns + i * count;
        round_to_grid(value, scale, zero, largest_code, rounded, codes);
#pragma omp simd
        for (std::int64_t lane = 0; lane < count; ++lane)
            errors[lane] += power_2_4(rounded[lane] - value[lane]);
    }
}

}  // namespace

void load(MatrixView<const float> rows, float* columns) {
    std::int64_t r = 0;
    for (; r + vector <= rows.rows; r += vector) {
        std::int64_t i = 0;
        for (; i + vector <= rows.cols; i += vector)
            transpose(rows.row(r) + i, rows.stride, columns + i * count + r, count);
        for (; i < rows.cols; ++i)
            for (std::int64_t lane = r; lane < r + vector; ++lane)
                columns[i * count + lane] = rows(lane, i);
    }
    for (; r < count; ++r)
        for (std::int64_t i = 0; i < rows.cols; ++i)
            columns[i * count + r] = r < rows.rows ? rows(r, i) : 0;
}

void store(const float* columns, MatrixView<float> rows) {
    std::int64_t r = 0;
    for (; r + vector <= rows.rows; r += vector) {
        std::int64_t i = 0;
        for (; i + vector <= rows.cols; i += vector)
            transpose(columns + i * count + r, count, rows.row(r) + i, rows.stride);
        for (; i < rows.cols; ++i)
            for (std::int64_t lane = r; lane < r + vector; ++lane)
                rows(lane, i) = columns[i * count + lane];
    }
    for (; r < rows.rows; ++r)
        for (std::int64_t i = 0; i < rows.cols; ++i)
            rows(r, i) = columns[i * count + r];
}

void find_scale(const float* columns, std::int64_t size, const Grid& grid, float* scale, float* zero) {
    const auto largest_code = static_cast<float>((1 << grid.bits) - 1);
    float low[count] = {};
    float high[count] = {};
    for (std::int64_t i = 0; i < size; ++i) {
        const float* value = columns + i * count;
#pragma omp simd
        for (std::int64_t lane = 0; lane < count; ++lane) {
            low[lane] = value[lane] < low[lane] ? value[lane] : low[lane];
            high[lane] = value[lane] > high[lane] ? value[lane] : high[lane];
        }
    }
    for (std::int64_t lane = 0; lane < count; ++lane) {
        if (grid.symmetric) {
            high[lane] = std::max(high[lane], -low[lane]);
            low[lane] = -high[lane];
        }
        if (low[lane] == 0 && high[lane] == 0) {
            low[lane] = -1;
            high[lane] = 1;
        }
    }

    const auto grid_of_range = [&](float ratio, float* scales, float* zeros) {
        for (std::int64_t lane = 0; lane < count; ++lane)
            scales[lane] = (ratio * high[lane] - ratio * low[lane]) / largest_code;
        round_scale(grid.scale_type, scales);
        for (std::int64_t lane = 0; lane < count; ++lane) {
            constexpr float shifter = 12582912.0F;
            const float steps = std::clamp(-ratio * low[lane] / scales[lane], 0.0F, largest_code);
            zeros[lane] = grid.symmetric ? (largest_code + 1) / 2 : (steps + shifter) - shifter;
        }
    };
    grid_of_range(1, scale, zero);
    if (grid.scale_search == ScaleSearch::none) return;

    float best[count];
    grid_errors(columns, size, largest_code, scale, zero, best);
    for (int step = 1; step < shrink_limit; ++step) {
        float scales[count];
        float zeros[count];
        float errors[count];
        grid_of_range(1 - static_cast<float>(step) / shrink_steps, scales, zeros);
        grid_errors(columns, size, largest_code, scales, zeros, errors);
        for (std::int64_t lane = 0; lane < count; ++lane) {
            if (errors[lane] < best[lane]) {
                best[lane] = errors[lane];
                scale[lane] = scales[lane];
                zero[lane] = zeros[lane];
            }
        }
    }
}

}  // namespace fairgptq::lanes
