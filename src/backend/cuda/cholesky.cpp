// cuSOLVER factors A = L·Lᵀ with L lower triangular; U·Uᵀ with U upper is that of the matrix with rows and columns in
// reverse order. It has the blocks on the diagonal; a panel of columns loses what the panels before it account for by
// matrix products (products.hpp), which are some three times as fast as its own. So is the inverse built (strips.hpp).
// Ranks share those products; the blocks on the diagonal, and what divides a panel by them, each does for itself.
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

// A row-major lower triangle is a column-major upper one.
void CudaBackend::factor_lower(MatrixView<float> matrix, int* failed) {
    const std::int64_t n = matrix.rows;
    std::size_t device_bytes = 0;
    std::size_t host_bytes = 0;
    cuda::check(cusolverDnXpotrf_bufferSize(solver_->handle, solver_->params, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_32F,
                                            matrix.data, matrix.stride, CUDA_R_32F, &device_bytes, &host_bytes),
                "cusolverDnXpotrf_bufferSize");
    solver_->host_workspace.resize(std::max(host_bytes, solver_->host_workspace.size()));
    auto* workspace = first_.get<std::byte>(static_cast<std::int64_t>(device_bytes));
    cuda::check(cusolverDnXpotrf(solver_->handle, solver_->params, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_32F, matrix.data,
                                 matrix.stride, CUDA_R_32F, workspace, device_bytes, solver_->host_workspace.data(),
                                 host_bytes, failed),
                "cusolverDnXpotrf");
}

// Left-looking: one product brings a panel up to date, whose rows any rank may compute: they have the same bytes
// whatever rows are beside them.
bool CudaBackend::factor_upper(MatrixView<float> matrix, Peers& peers) {
    require_square("factor_upper", matrix);
    const std::int64_t n = matrix.rows;
    if (n == 0) return true;
    memory_.use();
    auto* diagonal_before = second_.get<float>(n);
    cuda::check(cuda::launch_diagonal(cuda::plain_const(matrix), diagonal_before, stream()), "diagonal");
    cuda::check(cuda::launch_reverse(cuda::plain(matrix), false, stream()), "reverse (before factoring)");
    const std::int64_t panels = cuda::ceil_div(n, factor_panel_);
    auto* failed = flags_.get<int>(panels + 1);  // cuSOLVER's, ours
    for (std::int64_t panel = 0; panel < panels; ++panel) {
        const std::int64_t begin = panel * factor_panel_;
        const std::int64_t end = std::min(begin + factor_panel_, n);
        if (begin > 0) update_panel(matrix, begin, end, peers);
        const MatrixView<float> block = matrix.block(begin, begin, end - begin, end - begin);
        factor_lower(block, failed + panel);
        products_.solve_transposed(block, matrix.block(end, begin, n - end, end - begin));
    }
    cuda::check(cuda::launch_reverse(cuda::plain(matrix), true, stream()), "reverse (after factoring)");
    cuda::check(cuda::launch_check_pivots(cuda::plain_const(matrix), diagonal_before, failed + panels, stream()),
                "check_pivots");
    std::vector<int> results(static_cast<std::size_t>(panels) + 1);
    memory_.copy_to_host(results.data(), failed, results.size() * sizeof(int));
    for (const int result : results)
        if (result < 0) throw Failure("cusolverDnXpotrf did not take its argument {}", -result);
    return peers.agree(std::ranges::all_of(results, [](int result) { return result == 0; }));
}

void CudaBackend::update_panel(MatrixView<float> matrix, std::int64_t begin, std::int64_t end, Peers& peers) {
    const std::int64_t n = matrix.rows;
    const bool shared = n >= shared_least_;
    // In whole blocks of rows, so that each keeps its place where products are made in blocks (products.hpp).
    const std::int64_t blocks = cuda::ceil_div(n - begin, cuda::block_rows);
    const std::int64_t rows = cuda::ceil_div(blocks, shared ? peers.size() : 1) * cuda::block_rows;
    const std::int64_t pieces = cuda::ceil_div(n - begin, rows);
    const auto piece_at = [&](std::int64_t i) {
        const std::int64_t row = begin + i * rows;
        return matrix.rows_from(row, std::min(rows, n - row));
    };
    const auto block_at = [&](std::int64_t i) {
        const MatrixView<float> piece = piece_at(i);
        return piece.block(0, begin, piece.rows, end - begin);
    };
    Shares shares(peers, shared, std::vector<std::int64_t>(static_cast<std::size_t>(pieces), 1));
    for (std::int64_t i = 0; i < pieces; ++i)
        if (shares.mine(i))
            products_.fixed_order(cuda::Transpose::yes, -1, piece_at(i).block(0, 0, piece_at(i).rows, begin),
                                  matrix.block(begin, 0, end - begin, begin), 1, block_at(i));
    shares.exchange(block_at);
}

void CudaBackend::invert_upper(MatrixView<float> matrix, Peers& peers) {
    require_square("invert_upper", matrix);
    const std::int64_t n = matrix.rows;
    if (n == 0) return;
    memory_.use();
    cuda::check(cuda::launch_invert_leaves(cuda::plain(matrix), stream()), "invert_leaves");
    Peers alone;
    cuda::invert_pairs(products_, first_, matrix, n >= shared_least_ ? peers : alone, inverse_);
}

}  // namespace fairgptq
