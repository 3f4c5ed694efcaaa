#include "backend/soft_cap.hpp"

#include "backend/cpu/backend.hpp"
#include "backend/cpu/fast_exp.hpp"

namespace fairgptq {

void CpuBackend::soft_cap(TensorView values, float cap) {
    if (!(cap > 0)) throw Failure("soft_cap: {} is not above 0", cap);
    const MatrixView<float> x = values.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < x.rows; ++row)
        cap_softly(x.row(row), x.cols, cap);
}

}  // namespace fairgptq
