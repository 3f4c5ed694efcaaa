// Cosines and sines are found once per position, in double precision, and shared by all sequences and heads of the
// call.
#include "backend/rotary.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/sequences.hpp"

namespace fairgptq {

namespace {

void rotate(float* head, const float* cosines, const float* sines, std::int64_t half) {
    float* first = head;
    float* second = head + half;
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
        const float a = first[i];
        const float b = second[i];
        first[i] = a * cosines[i] - b * sines[i];
        second[i] = b * cosines[i] + a * sines[i];
    }
}

}  // namespace

void CpuBackend::rotary(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> offsets,
                        std::span<const float> frequencies, float attention_factor) {
    check_offsets("rotary", offsets, heads.rows);
    std::vector<std::int64_t> positions(static_cast<std::size_t>(heads.rows));
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        std::iota(positions.begin() + offsets[s], positions.begin() + offsets[s + 1], std::int64_t{0});
    rotary_at(heads, head_dim, positions, frequencies, attention_factor);
}

void CpuBackend::rotary_at(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                           std::span<const float> frequencies, float attention_factor) {
    const std::int64_t half = head_dim / 2;
    if (head_dim <= 0 || head_dim % 2 != 0 || heads.cols % head_dim != 0)
        throw Failure("rotary: {} features are not heads of {} elements, an even number", heads.cols, head_dim);
    if (static_cast<std::int64_t>(frequencies.size()) != half)
        throw Failure("rotary: {} frequencies were given for heads of {} elements", frequencies.size(), head_dim);
    if (static_cast<std::int64_t>(positions.size()) != heads.rows)
        throw Failure("rotary: {} positions were given for {} tokens", positions.size(), heads.rows);
    if (positions.empty()) return;
    const auto [first, last] = std::minmax_element(positions.begin(), positions.end());
    if (*first < 0) throw Failure("rotary: a token has the position {}", *first);
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
            for (std::int64_t col = 0; col < x.cols; col += head_dim)
                rotate(x.row(token) + col, cosines.data() + table, sines.data() + table, half);
        }
    }
}

}  // namespace fairgptq
