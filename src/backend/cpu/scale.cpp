#include "backend/scale.hpp"

#include "backend/cpu/backend.hpp"

namespace fairgptq {

void CpuBackend::scale(TensorView inputs, float factor, TensorView output, bool accumulate) {
    if (output.rows != inputs.rows || output.cols != inputs.cols)
        throw Failure("scale: [{}, {}] and [{}, {}] should be the same size", inputs.rows, inputs.cols, output.rows,
                      output.cols);
    const MatrixView<const float> x = inputs.float32();
    const MatrixView<float> y = output.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        const float* from = x.row(row);
        float* to = y.row(row);
        if (accumulate) {
#pragma omp simd
            for (std::int64_t col = 0; col < x.cols; ++col)
                to[col] += factor * from[col];
        } else {
#pragma omp simd
            for (std::int64_t col = 0; col < x.cols; ++col)
                to[col] = factor * from[col];
        }
    }
}

}  // namespace fairgptq
