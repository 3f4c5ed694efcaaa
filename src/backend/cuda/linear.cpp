// One cuBLAS product, on tensor cores for bfloat16 and float16. A bias is float32 and the output is not, so that sum is
// taken from a float32 product and rounded once.
#include "backend/linear.hpp"

#include <algorithm>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/tensors.hpp"

namespace fairgptq {

void CudaBackend::linear(TensorView inputs, TensorView weights, const float* bias, TensorView output, bool accumulate) {
    if (inputs.cols != weights.cols || output.rows != inputs.rows || output.cols != weights.rows)
        throw Failure("linear: inputs [{}, {}] times weights [{}, {}] transposed cannot give [{}, {}]", inputs.rows,
                      inputs.cols, weights.rows, weights.cols, output.rows, output.cols);
    cuda::require_one_type("linear", inputs, weights);
    if (bias != nullptr || output.type != DType::float32) cuda::require_one_type("linear", inputs, output);
    if (output.empty()) return;
    memory_.use();
    if (bias == nullptr && inputs.cols > 0) {
        products_.multiply_any(cuda::Transpose::no, cuda::Transpose::yes, inputs, weights, accumulate ? 1.0F : 0.0F,
                               output);
        return;
    }
    constexpr std::int64_t slab_rows = 2048;  // bounds the scratch memory
    for (std::int64_t row = 0; row < output.rows; row += slab_rows) {
        const std::int64_t rows = std::min(slab_rows, output.rows - row);
        const MatrixView<float> sums = first_.matrix<float>(rows, output.cols);
        if (inputs.cols > 0)
            products_.multiply_any(cuda::Transpose::no, cuda::Transpose::yes, inputs.rows_from(row, rows), weights, 0,
                                   sums);
        else
            memory_.zero(sums.data, static_cast<std::size_t>(rows * sums.cols) * sizeof(float));
        cuda::check(cuda::launch_add_bias(cuda::plain_const(sums), bias, cuda::plain(output.rows_from(row, rows)),
                                          accumulate, stream()),
                    "add_bias");
    }
}

}  // namespace fairgptq
