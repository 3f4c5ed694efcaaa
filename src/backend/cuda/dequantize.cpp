#include "backend/dequantize.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/matrix_kernels.hpp"

namespace fairgptq {

void CudaBackend::dequantize(MatrixView<const std::uint8_t> codes, MatrixView<const float> scales,
                             MatrixView<const std::uint8_t> zeros, const std::int32_t* group_index,
                             TensorView weights) {
    if (weights.rows != codes.rows || weights.cols != codes.cols || scales.rows != codes.rows ||
        zeros.rows != codes.rows || zeros.cols != scales.cols)
        throw Failure("dequantize: codes [{}, {}], scales [{}, {}] and zeros [{}, {}] do not give weights [{}, {}]",
                      codes.rows, codes.cols, scales.rows, scales.cols, zeros.rows, zeros.cols, weights.rows,
                      weights.cols);
    memory_.use();
    cuda::check(cuda::launch_dequantize(cuda::plain(codes), cuda::plain(scales), cuda::plain(zeros), group_index,
                                        weights.data, weights.type, weights.stride, stream()),
                "dequantize");
}

}  // namespace fairgptq
