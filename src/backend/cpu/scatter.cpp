#include "backend/scatter.hpp"

#include "backend/cpu/backend.hpp"

namespace fairgptq {

void CpuBackend::scatter_rows(TensorView inputs, std::span<const std::int32_t> ids, std::span<const float> factors,
                              TensorView output) {
    if (std::ssize(ids) != inputs.rows || factors.size() != ids.size() || output.cols != inputs.cols)
        throw Failure("scatter_rows: {} ids and {} factors of [{}, {}] do not fit [{}, {}]", ids.size(), factors.size(),
                      inputs.rows, inputs.cols, output.rows, output.cols);
    for (const std::int32_t id : ids)
        if (id < 0 || id >= output.rows) throw Failure("scatter_rows: {} is not one of {} rows", id, output.rows);
    const MatrixView<const float> x = inputs.float32();
    const MatrixView<float> y = output.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        const float factor = factors[static_cast<std::size_t>(row)];
        const float* from = x.row(row);
        float* to = y.row(ids[static_cast<std::size_t>(row)]);
#pragma omp simd
        for (std::int64_t col = 0; col < x.cols; ++col)
            to[col] += factor * from[col];
    }
}

}  // namespace fairgptq
