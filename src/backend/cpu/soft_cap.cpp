#include "backend/soft_cap.hpp"

#include "backend/cpu/backend.hpp"
#include "backend/cpu/fast_exp.hpp"

namespace fairgptq {

void CpuBackend::soft_cap(TensorView values, float cap) {
    if (!(cap > 0)) throw Failure("soft_cap: {} is not above 0", cap);
    const MatrixView<float> x = values.float32();
    const float inverse = 1.0F / cap;
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row) {
        float* of_row = x.row(row);
#pragma omp simd
        for (std::int64_t col = 0; col < x.cols; ++col)
            of_row[col] = cap * fast_tanh(of_row[col] * inverse);
    }
}

}  // namespace fairgptq
