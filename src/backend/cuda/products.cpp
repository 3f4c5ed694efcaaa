// cuBLAS is column-major: a row-major c = a·b is its cᵀ = bᵀ·aᵀ, with the operands exchanged and nothing moved.
#include "backend/cuda/products.hpp"

#include <cuda_runtime_api.h>

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

bool aligned(const void* data, std::int64_t stride) {
    constexpr std::uintptr_t vector = 16;
    return reinterpret_cast<std::uintptr_t>(data) % vector == 0 &&
           stride % static_cast<std::int64_t>(vector / sizeof(float)) == 0;
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

cublasLtMatmulAlgo_t Products::find_algorithm(const Layouts& layouts, std::uint32_t alignment) const {
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    cublasLtMatmulHeuristicResult_t found{};
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
                                                layouts.result, layouts.result, preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check(status, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0) throw Failure("cublasLtMatmulAlgoGetHeuristic found no float32 product without split sums");
    return found.algo;
}

/// Whether the algorithm, found for other sizes, takes these.
bool Products::use_algorithm(const Layouts& layouts, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(lt_handle_, layouts.product, layouts.first, layouts.second, layouts.result,
                                   layouts.result, &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize == 0;
}

void Products::fixed_order(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b,
                           float beta, MatrixView<float> c) {
    if (c.empty()) return;
    memory_.use();
    const bool vectors = aligned(a.data, a.stride) && aligned(b.data, b.stride) && aligned(c.data, c.stride);
    const std::uint32_t alignment = vectors ? 16 : sizeof(float);
    auto& chosen = algorithms_[2 * static_cast<std::size_t>(transpose_b) + static_cast<std::size_t>(vectors)];
    if (!chosen) {
        constexpr std::int64_t typical = 4096;
        constexpr std::int64_t typical_inner = 1024;
        const std::int64_t odd = vectors ? 0 : 1;
        const std::int64_t stride_b = (transpose_b == Transpose::yes ? typical_inner : typical) + odd;
        chosen = find_algorithm(
            Layouts(transpose_b, typical, typical, typical_inner, typical_inner + odd, stride_b, typical + odd),
            alignment);
    }
    const Layouts layouts(transpose_b, c.rows, c.cols, a.cols, a.stride, b.stride, c.stride);
    const cublasLtMatmulAlgo_t algorithm =
        use_algorithm(layouts, *chosen) ? *chosen : find_algorithm(layouts, alignment);
    check(cublasLtMatmul(lt_handle_, layouts.product, &alpha, b.data, layouts.first, a.data, layouts.second, &beta,
                         c.data, layouts.result, c.data, layouts.result, &algorithm, nullptr, 0, memory_.stream()),
          "cublasLtMatmul");
}

}  // namespace fairgptq::cuda
