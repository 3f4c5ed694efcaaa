// Rows are independent; each is read twice from cache and written once.
#include "backend/norm.hpp"

#include <cmath>

#include "backend/cpu/backend.hpp"

namespace fairgptq {

namespace {

void check_shapes(const char* operation, const TensorView& inputs, const TensorView& output) {
    if (output.rows != inputs.rows || output.cols != inputs.cols)
        throw Failure("{}: output [{}, {}] does not match inputs [{}, {}]", operation, output.rows, output.cols,
                      inputs.rows, inputs.cols);
}

/// Σ (values[i] − center)²
float squares_around(const float* values, std::int64_t count, float center) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i)
        sum += (values[i] - center) * (values[i] - center);
    return sum;
}

float total(const float* values, std::int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i)
        sum += values[i];
    return sum;
}

}  // namespace

void CpuBackend::rms_norm(TensorView inputs, const float* weight, float epsilon, TensorView output) {
    check_shapes("rms_norm", inputs, output);
    const MatrixView<const float> x = inputs.float32();
    const MatrixView<float> y = output.float32();
    const auto features = static_cast<float>(x.cols);
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        const float* from = x.row(row);
        float* to = y.row(row);
        const float factor = 1.0F / std::sqrt(squares_around(from, x.cols, 0.0F) / features + epsilon);
#pragma omp simd
        for (std::int64_t col = 0; col < x.cols; ++col)
            to[col] = from[col] * factor * weight[col];
    }
}

void CpuBackend::layer_norm(TensorView inputs, const float* weight, const float* bias, float epsilon,
                            TensorView output) {
    check_shapes("layer_norm", inputs, output);
    const MatrixView<const float> x = inputs.float32();
    const MatrixView<float> y = output.float32();
    const auto features = static_cast<float>(x.cols);
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        const float* from = x.row(row);
        float* to = y.row(row);
        const float mean = total(from, x.cols) / features;
        const float factor = 1.0F / std::sqrt(squares_around(from, x.cols, mean) / features + epsilon);
#pragma omp simd
        for (std::int64_t col = 0; col < x.cols; ++col)
            to[col] = (from[col] - mean) * factor * weight[col] + bias[col];
    }
}

}  // namespace fairgptq
