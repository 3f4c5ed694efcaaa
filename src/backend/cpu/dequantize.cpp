// A column's group comes from a table, because act-order and other column orders scatter groups over a row.
#include "backend/dequantize.hpp"

#include "backend/cpu/backend.hpp"

namespace fairgptq {

void CpuBackend::dequantize(MatrixView<const std::uint8_t> codes, MatrixView<const float> scales,
                            MatrixView<const std::uint8_t> zeros, const std::int32_t* group_index, TensorView weights) {
    if (weights.rows != codes.rows || weights.cols != codes.cols || scales.rows != codes.rows ||
        zeros.rows != codes.rows || zeros.cols != scales.cols)
        throw Failure("dequantize: codes [{}, {}], scales [{}, {}] and zeros [{}, {}] do not give weights [{}, {}]",
                      codes.rows, codes.cols, scales.rows, scales.cols, zeros.rows, zeros.cols, weights.rows,
                      weights.cols);
    for (std::int64_t col = 0; col < codes.cols; ++col)
        if (group_index[col] < 0 || group_index[col] >= scales.cols)
            throw Failure("dequantize: column {} is in group {}, but there are {} groups", col, group_index[col],
                          scales.cols);
    const MatrixView<float> w = weights.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < w.rows; ++row) {
        const std::uint8_t* code = codes.row(row);
        const std::uint8_t* zero = zeros.row(row);
        const float* scale = scales.row(row);
        float* to = w.row(row);
#pragma omp simd
        for (std::int64_t col = 0; col < w.cols; ++col) {
            const std::int32_t group = group_index[col];
            to[col] = scale[group] * static_cast<float>(code[col] - zero[group]);
        }
    }
}

}  // namespace fairgptq
