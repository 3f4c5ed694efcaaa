// cuBLAS is column-major: a row-major c = a·b is its cᵀ = bᵀ·aᵀ, with the operands exchanged and nothing moved.
#include "backend/cuda/products.hpp"

#include <cuda_runtime_api.h>

#include <array>

#include "backend/cuda/check.hpp"

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

template <class View>
std::int64_t inner_size(Transpose transpose_a, const View& a) {
    return transpose_a == Transpose::yes ? a.rows : a.cols;
}

constexpr std::uint32_t row_alignment = 16;  // bytes that kernels load at once

bool aligned(const void* data, std::int64_t stride) {
    return reinterpret_cast<std::uintptr_t>(data) % row_alignment == 0 &&
           stride % static_cast<std::int64_t>(row_alignment / sizeof(float)) == 0;
}

}  // namespace

/// Descriptions that cuBLASLt wants of a product, with one owner.
struct Products::Layouts {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;

    /// A row-major [m, k] · op(b) → [m, n].
    Layouts(Transpose transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t stride_a,
            std::int64_t stride_b, std::int64_t stride_c) {
        check(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
        const cublasOperation_t first_operation = operation(transpose_b);
        check(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &first_operation,
                                             sizeof(first_operation)),
              "cublasLtMatmulDescSetAttribute");
        const bool transposed = transpose_b == Transpose::yes;
        layout(first, transposed ? k : n, transposed ? n : k, stride_b);
        layout(second, k, m, stride_a);
        layout(result, n, m, stride_c);
    }
    ~Layouts() {
        for (cublasLtMatrixLayout_t one : {first, second, result})
            if (one != nullptr) cublasLtMatrixLayoutDestroy(one);
        if (product != nullptr) cublasLtMatmulDescDestroy(product);
    }
    Layouts(const Layouts&) = delete;
    Layouts& operator=(const Layouts&) = delete;

  private:
    static void layout(cublasLtMatrixLayout_t& to, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
        check(cublasLtMatrixLayoutCreate(&to, CUDA_R_32F, static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(cols), stride),
              "cublasLtMatrixLayoutCreate");
    }
};

Products::Products(Memory& memory) : memory_(memory), workspace_(memory.allocate(workspace_bytes)) {
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

void Products::multiply(Transpose transpose_a, Transpose transpose_b, float alpha, MatrixView<const float> a,
                        MatrixView<const float> b, float beta, MatrixView<float> c) {
    if (c.empty()) return;
    memory_.use();
    check(
        cublasSgemm_64(handle_, operation(transpose_b), operation(transpose_a), c.cols, c.rows,
                       inner_size(transpose_a, a), &alpha, b.data, b.stride, a.data, a.stride, &beta, c.data, c.stride),
        "cublasSgemm");
}

void Products::multiply_any(Transpose transpose_a, Transpose transpose_b, TensorView a, TensorView b, float beta,
                            TensorView c) {
    if (c.empty()) return;
    if (a.type != b.type) throw Failure("a matrix product's operands should be of one element type");
    memory_.use();
    const float alpha = 1;
    check(
        cublasGemmEx_64(handle_, operation(transpose_b), operation(transpose_a), c.cols, c.rows,
                        inner_size(transpose_a, a), &alpha, b.data, type_of(b.type), b.stride, a.data, type_of(a.type),
                        a.stride, &beta, c.data, type_of(c.type), c.stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
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

bool Products::takes(const Layouts& layouts, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(lt_handle_, layouts.product, layouts.first, layouts.second, layouts.result,
                                   layouts.result, &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize == 0;
}

cublasLtMatmulAlgo_t Products::find_algorithm(const Shape& shape) const {
    // Strides as the alignment allows; their size is no matter.
    const std::int64_t odd = shape.aligned ? 0 : 1;
    const auto stride = [&](std::int64_t size) { return (size + 3) / 4 * 4 + odd; };
    const auto layouts_of = [&](std::int64_t rows) {
        return Layouts(shape.transpose_b, rows, shape.cols, shape.inner, stride(shape.inner),
                       stride(shape.transpose_b == Transpose::yes ? shape.inner : shape.cols), stride(shape.cols));
    };
    constexpr std::int64_t many_rows = 4096;
    const Layouts layouts = layouts_of(many_rows);
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    std::array<cublasLtMatmulHeuristicResult_t, 32> found{};
    int count = 0;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
        return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
    };
    const std::uint32_t whole_sums = CUBLASLT_REDUCTION_SCHEME_NONE;
    const std::uint32_t alignment = shape.aligned ? row_alignment : sizeof(float);
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
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
    // A tile of 64 rows or the end of one, a rank's share, a whole matrix.
    for (int i = 0; i < count; ++i) {
        bool any_rows = found[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS;
        for (const std::int64_t rows : {1, 2, 31, 64, 1000, 4096, 32768})
            any_rows = any_rows && takes(layouts_of(rows), found[static_cast<std::size_t>(i)].algo);
        if (any_rows) return found[static_cast<std::size_t>(i)].algo;
    }
    throw Failure(
        "cuBLASLt has no kernel among {} for any number of rows times float32 [{}, {}]{}, rows aligned to {} bytes",
        count, shape.inner, shape.cols, shape.transpose_b == Transpose::yes ? " transposed" : "", alignment);
}

void Products::fixed_order(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b,
                           float beta, MatrixView<float> c) {
    if (c.empty()) return;
    memory_.use();
    const Shape shape{transpose_b, aligned(a.data, a.stride) && aligned(b.data, b.stride) && aligned(c.data, c.stride),
                      c.cols, a.cols};
    auto chosen = algorithms_.find(shape);
    if (chosen == algorithms_.end()) chosen = algorithms_.emplace(shape, find_algorithm(shape)).first;
    const Layouts layouts(transpose_b, c.rows, c.cols, a.cols, a.stride, b.stride, c.stride);
    if (!takes(layouts, chosen->second))
        throw Failure(
            "cuBLASLt refuses a float32 product [{}, {}] · [{}, {}], with a kernel that takes other numbers of rows",
            a.rows, a.cols, a.cols, c.cols);
    check(cublasLtMatmul(lt_handle_, layouts.product, &alpha, b.data, layouts.first, a.data, layouts.second, &beta,
                         c.data, layouts.result, c.data, layouts.result, &chosen->second, nullptr, 0, memory_.stream()),
          "cublasLtMatmul");
}

}  // namespace fairgptq::cuda
