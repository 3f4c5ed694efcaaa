// Cosines and sines are found once per position, in double precision, and shared by all sequences and heads of the
// call.
#include "backend/rotary.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/backend.hpp"

namespace fairgptq {

namespace {

/// @param step from one pair's first element to the next one's
/// @param apart from a pair's first element to its second
void rotate(float* head, const float* cosines, const float* sines, std::int64_t half, std::int64_t step,
            std::int64_t apart) {
    float* first = head;
    float* second = head + apart;
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
        const float a = first[i * step];
        const float b = second[i * step];
        first[i * step] = a * cosines[i] - b * sines[i];
        second[i * step] = b * cosines[i] + a * sines[i];
    }
}

}  // namespace

void CpuBackend::rotary_at(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                           std::span<const float> frequencies, float attention_factor, RotaryPairs pairs) {
    check_rotary(heads, head_dim, positions, frequencies);
    const std::int64_t half = std::ssize(frequencies);
    if (positions.empty()) return;
    const auto [first, last] = std::minmax_element(positions.begin(), positions.end());
    const std::int64_t low = *first;  // of a decoding step all positions are large: no table from 0
    const std::int64_t distinct = *last - low + 1;
    const MatrixView<float> x = heads.float32();

    std::vector<float> cosines(static_cast<std::size_t>(distinct * half));
    std::vector<float> sines(cosines.size());
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (std::int64_t p = 0; p < distinct; ++p) {
            for (std::int64_t i = 0; i < half; ++i) {
                const double angle =
                    static_cast<double>(low + p) * static_cast<double>(frequencies[static_cast<std::size_t>(i)]);
                cosines[static_cast<std::size_t>(p * half + i)] =
                    static_cast<float>(std::cos(angle)) * attention_factor;
                sines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::sin(angle)) * attention_factor;
            }
        }
#pragma omp for schedule(static)
        for (std::int64_t token = 0; token < x.rows; ++token) {
            const auto table = (positions[static_cast<std::size_t>(token)] - low) * half;
            for (std::int64_t col = 0; col < x.cols; col += head_dim) {
                float* head = x.row(token) + col;
                if (pairs == RotaryPairs::halves)
                    rotate(head, cosines.data() + table, sines.data() + table, half, 1, half);
                else
                    rotate(head, cosines.data() + table, sines.data() + table, half, 2, 1);
            }
        }
    }
}

}  // namespace fairgptq
