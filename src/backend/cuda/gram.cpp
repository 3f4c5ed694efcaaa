// A chunk's product in float32 by cuBLAS, its lower triangle only (strips.hpp), then added to the float64 sum.
#include "backend/gram.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/matrix_kernels.hpp"
#include "backend/cuda/strips.hpp"

namespace fairgptq {

void CudaBackend::accumulate_gram(TensorView inputs, MatrixView<float> scratch, PackedLower<double> sum) {
    const std::int64_t size = inputs.cols;
    if (scratch.rows != size || scratch.cols != size || sum.size != size)
        throw Failure("accumulate_gram: inputs have {} features, but scratch is [{}, {}] and the sum has {}", size,
                      scratch.rows, scratch.cols, sum.size);
    if (inputs.empty()) return;
    cuda::lower_gram(products_, inputs, scratch);
    cuda::check(cuda::launch_add_lower(cuda::plain_const(scratch), sum.data, stream()), "add_lower (covariance)");
}

void CudaBackend::finish_gram(PackedLower<const double> sum, double factor, MatrixView<float> gram) {
    if (gram.rows != sum.size || gram.cols != sum.size)
        throw Failure("finish_gram: a sum of {} features does not fit [{}, {}]", sum.size, gram.rows, gram.cols);
    memory_.use();
    cuda::check(cuda::launch_finish_gram(sum.data, factor, cuda::plain(gram), stream()), "finish_gram");
}

}  // namespace fairgptq
