#include "backend/cpu/lanes.hpp"

#include <algorithm>
#include <bit>
#include <limits>

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
    constexpr std::int64_t line = 16;  // a cache line of each row at a time
    for (std::int64_t begin = 0; begin < rows.cols; begin += line) {
        const std::int64_t end = std::min(begin + line, rows.cols);
        for (std::int64_t r = 0; r < rows.rows; ++r) {
            const float* row = rows.row(r);
            for (std::int64_t i = begin; i < end; ++i)
                columns[i * count + r] = row[i];
        }
    }
    if (rows.rows < count)
        for (std::int64_t i = 0; i < rows.cols; ++i)
            std::fill(columns + i * count + rows.rows, columns + (i + 1) * count, 0.0F);
}

void store(const float* columns, MatrixView<float> rows) {
    constexpr std::int64_t line = 16;
    for (std::int64_t begin = 0; begin < rows.cols; begin += line) {
        const std::int64_t end = std::min(begin + line, rows.cols);
        for (std::int64_t r = 0; r < rows.rows; ++r) {
            float* row = rows.row(r);
            for (std::int64_t i = begin; i < end; ++i)
                row[i] = columns[i * count + r];
        }
    }
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
            if (low[lane] < 0) low[lane] = -high[lane];
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
