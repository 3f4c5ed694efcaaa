// cuSOLVER factors A = L·Lᵀ with L lower triangular; U·Uᵀ with U upper is that of the matrix with rows and columns in
// reverse order. The inverse is built from matrix products (strips.hpp), as cuSOLVER's own reaches a third of their
// rate.
#include "backend/cholesky.hpp"

#include <algorithm>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/check.hpp"
#include "backend/cuda/matrix_kernels.hpp"
#include "backend/cuda/solver.hpp"
#include "backend/cuda/strips.hpp"

namespace fairgptq {
namespace {

void require_square(const char* operation, MatrixView<float> matrix) {
    if (matrix.rows != matrix.cols)
        throw Failure("{}: a square matrix was expected, not {} x {}", operation, matrix.rows, matrix.cols);
}

}  // namespace

bool CudaBackend::factor_upper(MatrixView<float> matrix) {
    require_square("factor_upper", matrix);
    const std::int64_t n = matrix.rows;
    if (n == 0) return true;
    memory_.use();
    auto* diagonal_before = second_.get<float>(n);
    cuda::check(cuda::launch_diagonal(cuda::plain_const(matrix), diagonal_before, stream()), "diagonal");
    cuda::check(cuda::launch_reverse(cuda::plain(matrix), false, stream()), "reverse (before factoring)");

    // A row-major lower triangle is a column-major upper one.
    std::size_t device_bytes = 0;
    std::size_t host_bytes = 0;
    cuda::check(cusolverDnXpotrf_bufferSize(solver_->handle, solver_->params, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_32F,
                                            matrix.data, matrix.stride, CUDA_R_32F, &device_bytes, &host_bytes),
                "cusolverDnXpotrf_bufferSize");
    solver_->host_workspace.resize(std::max(host_bytes, solver_->host_workspace.size()));
    auto* workspace = first_.get<std::byte>(static_cast<std::int64_t>(device_bytes));
    auto* failed = flags_.get<int>(2);  // cuSOLVER's, ours
    cuda::check(cusolverDnXpotrf(solver_->handle, solver_->params, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_32F, matrix.data,
                                 matrix.stride, CUDA_R_32F, workspace, device_bytes, solver_->host_workspace.data(),
                                 host_bytes, failed),
                "cusolverDnXpotrf");
    cuda::check(cuda::launch_reverse(cuda::plain(matrix), true, stream()), "reverse (after factoring)");
    cuda::check(cuda::launch_check_pivots(cuda::plain_const(matrix), diagonal_before, failed + 1, stream()),
                "check_pivots");
    int results[2] = {};
    memory_.copy_to_host(results, failed, sizeof(results));
    if (results[0] < 0) throw Failure("cusolverDnXpotrf did not take its argument {}", -results[0]);
    return results[0] == 0 && results[1] == 0;
}

void CudaBackend::invert_upper(MatrixView<float> matrix) {
    require_square("invert_upper", matrix);
    const std::int64_t n = matrix.rows;
    if (n == 0) return;
    memory_.use();
    cuda::check(cuda::launch_invert_leaves(cuda::plain(matrix), stream()), "invert_leaves");
    cuda::invert_pairs(products_, first_, matrix);
}

}  // namespace fairgptq
