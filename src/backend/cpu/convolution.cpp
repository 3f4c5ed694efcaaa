#include "backend/convolution.hpp"

#include <algorithm>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/fast_exp.hpp"

namespace fairgptq {

void CpuBackend::convolve(TensorView inputs, const float* weights, std::int64_t width,
                          std::span<const std::int32_t> previous, bool silu, TensorView output) {
    check_convolution(inputs, width, previous, output);
    const MatrixView<const float> x = inputs.float32();
    const MatrixView<float> y = output.float32();
    // A tap's weights side by side, as channels are.
    std::vector<float> taps(static_cast<std::size_t>(x.cols * width));
    for (std::int64_t channel = 0; channel < x.cols; ++channel)
        for (std::int64_t step = 0; step < width; ++step)
            taps[static_cast<std::size_t>(step * x.cols + channel)] = weights[channel * width + width - 1 - step];
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        float* to = y.row(row);
        std::fill_n(to, x.cols, 0.0F);
        std::int64_t at = row;
        for (std::int64_t step = 0; step < width && at >= 0; ++step) {
            const float* from = x.row(at);
            const float* tap = taps.data() + step * x.cols;
#pragma omp simd
            for (std::int64_t col = 0; col < x.cols; ++col)
                to[col] += tap[col] * from[col];
            at = previous[static_cast<std::size_t>(at)];
        }
        if (!silu) continue;
#pragma omp simd
        for (std::int64_t col = 0; col < x.cols; ++col)
            to[col] = to[col] / (1.0F + fast_exp(-to[col]));
    }
}

}  // namespace fairgptq
