// cuBLAS is column-major: a row-major c = a·b is its cᵀ = bᵀ·aᵀ, with the operands exchanged and nothing moved.
#include "backend/cuda/products.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "backend/cuda/check.hpp"
#include "backend/cuda/split_kernels.hpp"
#include "backend/cuda/tensors.hpp"
#include "support/say.hpp"

namespace fairgptq::cuda {
namespace {

cublasOperation_t operation(Transpose transpose) {
    return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
}

cudaDataType_t type_of(DType type) {
    switch (type) {
        case DType::float16:
            return CUDA_R_16F;
        case DType::bfloat16:
            return CUDA_R_16BF;
        case DType::float32:
            break;
    }
    return CUDA_R_32F;
}

constexpr std::uint32_t row_alignment = 16;          // bytes that kernels load at once
constexpr std::int64_t most_rows_at_once = 1 << 15;  // that fixed_order's kernels are asked about

/// Elements of a type that kernels load at once.
std::int64_t at_once(DType type) {
    return static_cast<std::int64_t>(row_alignment / size_of(type));
}
bool aligned(const TensorView& view) {
    return reinterpret_cast<std::uintptr_t>(view.data) % row_alignment == 0 && view.stride % at_once(view.type) == 0;
}
/// Of rows that a kernel may take where it refuses so many: a power of 2, or none.
std::int64_t fewer_rows(std::int64_t rows) {
    return std::min(static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(rows - 1))), most_rows_at_once);
}
/// Whether cuBLASLt will not have a product, rather than fails at it.
bool is_refusal(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
           status == CUBLAS_STATUS_ARCH_MISMATCH;
}
TensorView tensor(MatrixView<const float> matrix) {
    return TensorView(MatrixView<float>(const_cast<float*>(matrix.data), matrix.rows, matrix.cols, matrix.stride));
}

}  // namespace

/// Descriptions that cuBLASLt wants of a product, with one owner.
struct Products::Layouts {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;

    /// A row-major [m, k] · op(b) → [m, n].
    Layouts(DType type, Transpose transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t stride_a,
            std::int64_t stride_b, std::int64_t stride_c) {
        check(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
        const cublasOperation_t first_operation = operation(transpose_b);
        check(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &first_operation,
                                             sizeof(first_operation)),
              "cublasLtMatmulDescSetAttribute");
        const bool transposed = transpose_b == Transpose::yes;
        layout(first, type, transposed ? k : n, transposed ? n : k, stride_b);
        layout(second, type, k, m, stride_a);
        layout(result, DType::float32, n, m, stride_c);
    }
    ~Layouts() {
        for (cublasLtMatrixLayout_t one : {first, second, result})
            if (one != nullptr) cublasLtMatrixLayoutDestroy(one);
        if (product != nullptr) cublasLtMatmulDescDestroy(product);
    }
    Layouts(const Layouts&) = delete;
    Layouts& operator=(const Layouts&) = delete;

  private:
    static void layout(cublasLtMatrixLayout_t& to, DType type, std::int64_t rows, std::int64_t cols,
                       std::int64_t stride) {
        check(cublasLtMatrixLayoutCreate(&to, type_of(type), static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(cols), stride),
              "cublasLtMatrixLayoutCreate");
    }
};

Products::Products(Memory& memory, SplitSizes split, bool only_blocks)
    : memory_(memory), split_(split), only_blocks_(only_blocks), workspace_(memory.allocate(workspace_bytes)) {
    memory.use();
    check(cublasCreate(&handle_), "cublasCreate");
    check(cublasSetStream(handle_, memory.stream()), "cublasSetStream");
    check(cublasSetWorkspace(handle_, workspace_.data(), workspace_.bytes()), "cublasSetWorkspace");
    // float16 sums in float32, too, when a product is split.
    const auto mode = static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    check(cublasSetMathMode(handle_, mode), "cublasSetMathMode");
    check(cublasSetAtomicsMode(handle_, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
    check(cublasLtCreate(&lt_handle_), "cublasLtCreate");
}

Products::~Products() {
    if (lt_handle_ != nullptr) cublasLtDestroy(lt_handle_);
    if (handle_ != nullptr) cublasDestroy(handle_);
}

void Products::multiply(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b,
                        float beta, MatrixView<float> c) {
    if (c.empty()) return;
    if (is_split(a, c)) return multiply_split(Transpose::no, transpose_b, alpha, a, b, beta, c);
    memory_.use();
    check(cublasSgemm_64(handle_, operation(transpose_b), CUBLAS_OP_N, c.cols, c.rows, a.cols, &alpha, b.data, b.stride,
                         a.data, a.stride, &beta, c.data, c.stride),
          "cublasSgemm");
}

void Products::multiply_any(Transpose transpose_a, Transpose transpose_b, TensorView a, TensorView b, float beta,
                            TensorView c) {
    if (c.empty()) return;
    if (a.type != b.type) throw Failure("a matrix product's operands should be of one element type");
    // aᵀ · b of however few rows: a split product of few costs what writing c does.
    const std::int64_t whole = at_once(DType::bfloat16);
    if (a.type == DType::float32 && c.type == DType::float32 && transpose_a == Transpose::yes &&
        transpose_b == Transpose::no && c.cols >= split_.least && c.rows % whole == 0 && c.cols % whole == 0)
        return multiply_split(transpose_a, transpose_b, 1, a.float32(), b.float32(), beta, c.float32());
    memory_.use();
    product(transpose_a, transpose_b, 1, a, b, beta, c);
}

void Products::product(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b,
                       float beta, TensorView c) {
    check(cublasGemmEx_64(handle_, operation(transpose_b), operation(transpose_a), c.cols, c.rows,
                          transpose_a == Transpose::yes ? a.rows : a.cols, &alpha, b.data, type_of(b.type), b.stride,
                          a.data, type_of(a.type), a.stride, &beta, c.data, type_of(c.type), c.stride,
                          CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
          "cublasGemmEx");
}

void Products::multiply_batch(float alpha, MatrixView<const float> a, std::int64_t stride_a, MatrixView<const float> b,
                              std::int64_t stride_b, MatrixView<float> c, std::int64_t stride_c, std::int64_t count) {
    if (c.empty() || count == 0) return;
    memory_.use();
    const float beta = 0;
    check(cublasSgemmStridedBatched_64(handle_, CUBLAS_OP_N, CUBLAS_OP_N, c.cols, c.rows, a.cols, &alpha, b.data,
                                       b.stride, stride_b, a.data, a.stride, stride_a, &beta, c.data, c.stride,
                                       stride_c, count),
          "cublasSgemmStridedBatched");
}

// Column-major: the lower triangle is an upper one U, and rightᵀ = U⁻ᵀ·rightᵀ.
void Products::solve_transposed(MatrixView<const float> lower, MatrixView<float> right) {
    if (right.empty()) return;
    memory_.use();
    const float alpha = 1;
    check(cublasStrsm_64(handle_, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, CUBLAS_DIAG_NON_UNIT,
                         right.cols, right.rows, &alpha, lower.data, lower.stride, right.data, right.stride),
          "cublasStrsm");
}

bool Products::takes(const Layouts& layouts, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(lt_handle_, layouts.product, layouts.first, layouts.second, layouts.result,
                                   layouts.result, &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize == 0;
}

std::vector<cublasLtMatmulAlgo_t> Products::offered(const Layouts& layouts, std::uint32_t alignment) const {
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    std::array<cublasLtMatmulHeuristicResult_t, 32> found{};
    int count = 0;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
        return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
    };
    const std::uint32_t whole_sums = CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasStatus_t status = set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, whole_sums);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        if (status == CUBLAS_STATUS_SUCCESS) status = set(attribute, alignment);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(lt_handle_, layouts.product, layouts.first, layouts.second,
                                                layouts.result, layouts.result, preference,
                                                static_cast<int>(found.size()), found.data(), &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (!is_refusal(status)) check(status, "cublasLtMatmulAlgoGetHeuristic");
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i)
        if (found[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
            algorithms.push_back(found[static_cast<std::size_t>(i)].algo);
    return algorithms;
}

std::optional<cublasLtMatmulAlgo_t> Products::find_algorithm(const Shape& shape) {
    if (only_blocks_) return std::nullopt;
    const auto layouts_of = [&](std::int64_t rows) {
        return Layouts(shape.type, shape.transpose_b, rows, shape.cols, shape.inner, shape.stride_a, shape.stride_b,
                       shape.stride_c);
    };
    const auto alignment = static_cast<std::uint32_t>(shape.aligned ? row_alignment : size_of(shape.type));
    // Kernels for many rows first: most products have. Those for few are only slower.
    std::optional<cublasLtMatmulAlgo_t> best;
    std::int64_t refused = block_rows;  // by the best; one that takes fewer is no better than blocks
    for (const std::int64_t rows_asked_for : {4096, 64, 1})
        for (const cublasLtMatmulAlgo_t& algorithm : offered(layouts_of(rows_asked_for), alignment)) {
            std::int64_t rows = 1;
            while (rows <= most_rows_at_once && takes(layouts_of(rows), algorithm))
                rows *= 2;
            if (rows > refused) best = algorithm;
            refused = std::max(refused, rows);
            if (refused > most_rows_at_once) return best;
        }
    if (!best) say_once(shape);
    return best;
}

void Products::say_once(const Shape& shape) {
    if (std::exchange(said_, true)) return;
    warn(
        "cuBLASLt has no kernel for 1, 2, 4, … {} rows times {} [{}, {}]{}, aligned to {} bytes: cuBLAS takes such "
        "products {} rows at a time, which is slower",
        block_rows, name_of(shape.type), shape.inner, shape.cols,
        shape.transpose_b == Transpose::yes ? " transposed" : "", shape.aligned ? row_alignment : size_of(shape.type),
        block_rows);
}

void Products::fixed_order(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b,
                           float beta, MatrixView<float> c) {
    if (c.empty()) return;
    if (is_split(a, c))
        multiply_split(Transpose::no, transpose_b, alpha, a, b, beta, c);
    else
        one_fixed_order(transpose_b, alpha, tensor(a), tensor(b), beta, c);
}

bool Products::is_split(MatrixView<const float> a, MatrixView<const float> c) const {
    const std::int64_t whole = at_once(DType::bfloat16);
    return std::min(c.cols, a.cols) >= split_.least && a.cols % whole == 0 && c.cols % whole == 0 && aligned(tensor(c));
}

// Parts of b stay for all rows; sums over the inner size are taken in one order, whatever the rows.
void Products::multiply_split(Transpose transpose_a, Transpose transpose_b, float alpha, MatrixView<const float> a,
                              MatrixView<const float> b, float beta, MatrixView<float> c) {
    memory_.use();
    const bool turned_a = transpose_a == Transpose::yes, turned_b = transpose_b == Transpose::yes;
    const std::int64_t inner_size = turned_a ? a.rows : a.cols;
    // No more than memory is planned for (split_elements), where the sums' order is free.
    const std::int64_t most = turned_a ? std::min(split_.inner, c.rows) : split_.inner;
    const auto parts = [](Scratch& memory, std::int64_t rows, std::int64_t cols) {
        return TensorView(memory.get<std::uint16_t>(rows * cols), DType::bfloat16, rows, cols);
    };
    for (std::int64_t col = 0; col < c.cols; col += split_.side) {
        const std::int64_t cols = std::min(split_.side, c.cols - col);
        for (std::int64_t k = 0; k < inner_size; k += most) {
            const std::int64_t inner = std::min(most, inner_size - k);
            const std::int64_t all = split_products * inner;
            const TensorView second = parts(second_parts_, turned_b ? cols : all, turned_b ? all : cols);
            check(launch_split(plain_const(turned_b ? b.block(col, k, cols, inner) : b.block(k, col, inner, cols)),
                               turned_b ? SplitParts::second_across : SplitParts::second_down, second.data,
                               memory_.stream()),
                  "split (second factor)");
            for (std::int64_t row = 0; row < c.rows; row += split_.side) {
                const std::int64_t rows = std::min(split_.side, c.rows - row);
                const float before = k == 0 ? beta : 1.0F;
                const MatrixView<float> result = c.block(row, col, rows, cols);
                const TensorView first = parts(first_parts_, turned_a ? all : rows, turned_a ? rows : all);
                check(launch_split(plain_const(turned_a ? a.block(k, row, inner, rows) : a.block(row, k, rows, inner)),
                                   turned_a ? SplitParts::first_down : SplitParts::first_across, first.data,
                                   memory_.stream()),
                      "split (first factor)");
                if (turned_a)
                    product(transpose_a, transpose_b, alpha, first, second, before, result);
                else
                    one_fixed_order(transpose_b, alpha, first, second, before, result);
            }
        }
    }
}

void Products::one_fixed_order(Transpose transpose_b, float alpha, TensorView a, TensorView b, float beta,
                               MatrixView<float> c) {
    memory_.use();
    const Shape shape{a.type,   transpose_b, aligned(a) && aligned(b) && aligned(tensor(c)), c.cols, a.cols, a.stride,
                      b.stride, c.stride};
    auto found = algorithms_.find(shape);
    if (found == algorithms_.end()) found = algorithms_.emplace(shape, find_algorithm(shape)).first;
    std::optional<cublasLtMatmulAlgo_t>& algorithm = found->second;
    std::int64_t row = 0;
    while (algorithm && row < c.rows) {
        // A kernel may refuse numbers of rows at will: fewer at once give the same bytes.
        std::int64_t rows = c.rows - row;
        while (rows > 0 &&
               !multiply_by(*algorithm, transpose_b, alpha, a.rows_from(row, rows), b, beta, c.rows_from(row, rows)))
            rows = fewer_rows(rows);
        if (rows == 0) {
            say_once(shape);
            algorithm.reset();
        }
        row += rows;
    }
    if (row < c.rows) {
        const std::int64_t rest = c.rows - row;
        multiply_in_blocks(transpose_b, alpha, a.rows_from(row, rest), b, beta, c.rows_from(row, rest));
    }
}

bool Products::multiply_by(const cublasLtMatmulAlgo_t& algorithm, Transpose transpose_b, float alpha, TensorView a,
                           TensorView b, float beta, MatrixView<float> c) {
    const Layouts layouts(a.type, transpose_b, c.rows, c.cols, a.cols, a.stride, b.stride, c.stride);
    if (!takes(layouts, algorithm)) return false;
    const cublasStatus_t status =
        cublasLtMatmul(lt_handle_, layouts.product, &alpha, b.data, layouts.first, a.data, layouts.second, &beta,
                       c.data, layouts.result, c.data, layouts.result, &algorithm, nullptr, 0, memory_.stream());
    if (is_refusal(status)) return false;
    check(status, "cublasLtMatmul");
    return true;
}

// Copied even where a block is whole: cuBLAS may look at pointers and strides, too. A block begins at a multiple of 64
// rows, as the solver's tiles do, so that a row has the same place in its block whatever rows a rank holds.
void Products::multiply_in_blocks(Transpose transpose_b, float alpha, TensorView a, TensorView b, float beta,
                                  MatrixView<float> c) {
    const auto copy = [&](TensorView to, TensorView from) {
        const std::size_t element = size_of(from.type);
        const auto bytes = [&](std::int64_t elements) { return static_cast<std::size_t>(elements) * element; };
        check(cudaMemcpy2DAsync(to.data, bytes(to.stride), from.data, bytes(from.stride), bytes(from.cols),
                                static_cast<std::size_t>(from.rows), cudaMemcpyDeviceToDevice, memory_.stream()),
              "cudaMemcpy2DAsync (block of rows)");
    };
    auto* memory = block_.get<float>(block_rows * (block_cols + block_inner));
    const MatrixView<float> sums(memory, block_rows, block_cols);
    const TensorView factor(memory + block_rows * block_cols, a.type, block_rows, block_inner);
    for (std::int64_t row = 0; row < c.rows; row += block_rows)
        for (std::int64_t col = 0; col < c.cols; col += block_cols) {
            const std::int64_t rows = std::min(block_rows, c.rows - row);
            const std::int64_t cols = std::min(block_cols, c.cols - col);
            const MatrixView<float> result = c.block(row, col, rows, cols);
            if (beta != 0) copy(sums, result);
            for (std::int64_t k = 0; k < a.cols; k += block_inner) {
                const std::int64_t inner = std::min(block_inner, a.cols - k);
                copy(factor, a.rows_from(row, rows).cols_from(k, inner));
                product(Transpose::no, transpose_b, alpha, factor.cols_from(0, inner),
                        transpose_b == Transpose::yes ? b.rows_from(col, cols).cols_from(k, inner)
                                                      : b.rows_from(k, inner).cols_from(col, cols),
                        k == 0 ? beta : 1, sums.block(0, 0, block_rows, cols));
            }
            copy(result, sums.block(0, 0, rows, cols));
        }
}

}  // namespace fairgptq::cuda
