// cuBLAS and cuBLASLt as plain loops. Matrices are column-major, as theirs are.
//
// A library is free to choose a kernel for a product by its sizes, and kernels sum in orders of their own: so does this
// one. Whoever relies on an order that cuBLAS does not promise gets other bytes for other sizes. Of cuBLASLt's
// algorithms some refuse some sizes, too.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "cublasLt.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "emulation.hpp"
#include "tensor_sum.hpp"

struct cublasContext {
    int device = 0;
    cudaStream_t stream = nullptr;
    bool has_workspace = false;
};
struct cublasLtContext {};
struct EmulatedMatmulDesc {
    cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
};
struct EmulatedMatrixLayout {
    cudaDataType type;
    std::int64_t rows, cols, stride;
};
struct EmulatedMatmulPreference {
    std::uint32_t alignment = 256;
    std::uint32_t reductions = 7;  // all of them
};

namespace emulation {
namespace {

struct Operand {
    const void* data = nullptr;
    cudaDataType type = CUDA_R_32F;
    std::int64_t stride = 0;
    bool transposed = false;
};

std::size_t size_of(cudaDataType type) {
    return type == CUDA_R_32F ? 4 : 2;
}
float element(const void* data, cudaDataType type, std::int64_t index) {
    if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(data)[index]);
    if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
    return static_cast<const float*>(data)[index];
}
void set_element(void* data, cudaDataType type, std::int64_t index, float value) {
    if (type == CUDA_R_16F)
        static_cast<__half*>(data)[index] = __float2half_rn(value);
    else if (type == CUDA_R_16BF)
        static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
    else
        static_cast<float*>(data)[index] = value;
}

/// op(matrix) [rows, cols] as float32, column after column without gaps.
std::vector<float> packed(const Operand& matrix, std::int64_t rows, std::int64_t cols) {
    const std::int64_t stored_rows = matrix.transposed ? cols : rows;
    const std::int64_t stored_cols = matrix.transposed ? rows : cols;
    if (rows > 0 && cols > 0)
        require_inside(matrix.data,
                       static_cast<std::size_t>((stored_cols - 1) * matrix.stride + stored_rows) * size_of(matrix.type),
                       "a product's operand");
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (std::int64_t col = 0; col < cols; ++col)
        for (std::int64_t row = 0; row < rows; ++row)
            values[static_cast<std::size_t>(col * rows + row)] = element(
                matrix.data, matrix.type, matrix.transposed ? row * matrix.stride + col : col * matrix.stride + row);
    return values;
}

struct Product {
    std::int64_t m = 0, n = 0, k = 0;
    float alpha = 1, beta = 0;
    Operand a, b;
    void* c = nullptr;
    cudaDataType type_c = CUDA_R_32F;
    std::int64_t stride_c = 0;
    std::int64_t chunk = 1;  // of k: partial sums that are added up
};

/// to[row] += Σ a[row, i]·b[i], i in begin … end
void add_rounded(const float* a, std::int64_t rows, const float* b, std::int64_t begin, std::int64_t end, float* to) {
    for (std::int64_t inner = begin; inner < end; ++inner)
        for (std::int64_t row = 0; row < rows; ++row)
            to[row] += a[inner * rows + row] * b[inner];
}
/// @param count of products; a constant where it can be, as the compiler then takes several rows at once
template <class Count>
void add_at_once(const float* a, std::int64_t rows, const float* b, Count count, float* to) {
    for (std::int64_t row = 0; row < rows; ++row) {
        double products[products_at_once] = {};
        for (int i = 0; i < count; ++i)
            products[i] = static_cast<double>(a[i * rows + row]) * static_cast<double>(b[i]);
        to[row] = add_products(to[row], products);
    }
}
void add_on_tensor_cores(const float* a, std::int64_t rows, const float* b, std::int64_t begin, std::int64_t end,
                         float* to) {
    std::int64_t first = begin;
    for (; first + products_at_once <= end; first += products_at_once)
        add_at_once(a + first * rows, rows, b + first, std::integral_constant<int, products_at_once>(), to);
    if (first < end) add_at_once(a + first * rows, rows, b + first, static_cast<int>(end - first), to);
}

void multiply(const Product& product) {
    const auto [m, n, k, alpha, beta, operand_a, operand_b, c, type_c, stride_c, chunk] = product;
    const DeviceAccess access;
    require_inside(c, static_cast<std::size_t>((n - 1) * stride_c + m) * size_of(type_c), "a product's result");
    const std::vector<float> a = packed(operand_a, m, k);
    const std::vector<float> b = packed(operand_b, k, n);
    std::vector<float> sums(static_cast<std::size_t>(m)), part(sums.size());
    for (std::int64_t col = 0; col < n; ++col) {
        std::fill(sums.begin(), sums.end(), 0.0F);
        for (std::int64_t begin = 0; begin < k; begin += chunk) {
            std::fill(part.begin(), part.end(), 0.0F);
            const std::int64_t end = std::min(begin + chunk, k);
            if (operand_a.type == CUDA_R_32F)
                add_rounded(a.data(), m, b.data() + col * k, begin, end, part.data());
            else
                add_on_tensor_cores(a.data(), m, b.data() + col * k, begin, end, part.data());
            for (std::int64_t row = 0; row < m; ++row)
                sums[static_cast<std::size_t>(row)] += part[static_cast<std::size_t>(row)];
        }
        for (std::int64_t row = 0; row < m; ++row) {
            const std::int64_t at = col * stride_c + row;
            const float value = alpha * sums[static_cast<std::size_t>(row)];
            set_element(c, type_c, at, beta == 0 ? value : value + beta * element(c, type_c, at));
        }
    }
}

/// Another order of sums for other sizes.
std::int64_t some_chunk(std::int64_t m, std::int64_t n) {
    return std::int64_t{16} << ((m + 3 * n) % 5);
}

/// Pointers and strides that a product takes; type_c as a's or float32.
cublasStatus_t check(const Product& product) {
    const auto& [m, n, k, alpha, beta, a, b, c, type_c, stride_c, chunk] = product;
    if (m < 0 || n < 0 || k < 0 || a.stride < std::max<std::int64_t>(1, a.transposed ? k : m) ||
        b.stride < std::max<std::int64_t>(1, b.transposed ? n : k) || stride_c < std::max<std::int64_t>(1, m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a.type != b.type || (type_c != a.type && type_c != CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!is_device_pointer(a.data) || !is_device_pointer(b.data) || !is_device_pointer(c))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return CUBLAS_STATUS_SUCCESS;
}

/// A handle is its device's, and setting its stream takes its workspace away: other streams' products could then share
/// the library's own.
bool is_ready(cublasHandle_t handle) {
    int device = 0;
    cudaGetDevice(&device);
    if (!handle->has_workspace) fail("cuBLAS is used without a workspace, which cublasSetStream takes away");
    return handle->device == device && is_this_threads(handle->stream);
}

cublasStatus_t submit(cudaStream_t stream, const Product& product) {
    const std::lock_guard lock(runtime_lock());
    if (!is_this_threads(stream)) return CUBLAS_STATUS_EXECUTION_FAILED;
    const cublasStatus_t status = check(product);
    if (status != CUBLAS_STATUS_SUCCESS || product.m == 0 || product.n == 0) return status;
    enqueue(stream, [product] { multiply(product); });
    return status;
}
cublasStatus_t submit(cublasHandle_t handle, const Product& product) {
    const std::lock_guard lock(runtime_lock());
    return is_ready(handle) ? submit(handle->stream, product) : CUBLAS_STATUS_EXECUTION_FAILED;
}

/// cuBLASLt's algorithms: what each takes, and the order of its sums.
struct Algorithm {
    std::int64_t fewest_cols;  // of the result
    std::uint32_t alignment;
    std::int64_t chunk;  // 0: in parts of a size that the product's size decides
};
constexpr std::int64_t whole = std::int64_t{1} << 40;  // one sum from its first product to its last, as most have
constexpr Algorithm algorithms[] = {{1, 4, 0}, {8, 16, 64}, {3, 4, 128}, {1, 16, whole}, {1, 4, 256}};

MatmulRefusals& refusals() {
    static MatmulRefusals one;
    return one;
}

/// None takes a multiple of 7: what a library's kernels refuse follows no rule that it tells.
bool takes(const Algorithm& algorithm, const EmulatedMatrixLayout& result) {
    if (refusals().gaps && result.stride > result.rows) return false;
    return result.cols >= algorithm.fewest_cols && result.cols % 7 != 0;
}

/// Whether an algorithm is among those that a library would choose. It may keep what takes few columns for products
/// that have few.
bool is_offered(const Algorithm& algorithm, const EmulatedMatrixLayout& result,
                const EmulatedMatmulPreference& preference) {
    constexpr std::int64_t few = 100;
    if (refusals().offers) return false;
    if (result.rows % 3 == 0 && result.cols > few && algorithm.fewest_cols == 1) return false;
    return takes(algorithm, result) && preference.alignment >= algorithm.alignment &&
           (algorithm.chunk != 0 || preference.reductions != CUBLASLT_REDUCTION_SCHEME_NONE);
}

/// Whether a product's layouts go together.
bool is_product(const EmulatedMatmulDesc& product, const EmulatedMatrixLayout& a, const EmulatedMatrixLayout& b,
                const EmulatedMatrixLayout& d) {
    const bool turned_a = product.transpose_a == CUBLAS_OP_T;
    const bool turned_b = product.transpose_b == CUBLAS_OP_T;
    return (turned_a ? a.cols : a.rows) == d.rows && (turned_b ? b.rows : b.cols) == d.cols &&
           (turned_a ? a.rows : a.cols) == (turned_b ? b.cols : b.rows) && a.type == b.type && a.stride >= a.rows &&
           b.stride >= b.rows && d.stride >= d.rows;
}

}  // namespace

void set_matmul_refusals(const MatmulRefusals& wanted) {
    refusals() = wanted;
}

}  // namespace emulation

using namespace emulation;

const char* cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS:
            return "success";
        case CUBLAS_STATUS_INVALID_VALUE:
            return "invalid value";
        case CUBLAS_STATUS_NOT_SUPPORTED:
            return "not supported";
        default:
            return "another status";
    }
}
cublasStatus_t cublasCreate(cublasHandle_t* handle) {
    *handle = new cublasContext;
    cudaGetDevice(&(*handle)->device);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    handle->has_workspace = false;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
    const std::lock_guard lock(runtime_lock());
    constexpr std::uintptr_t alignment = 256;
    if (reinterpret_cast<std::uintptr_t>(workspace) % alignment != 0) return CUBLAS_STATUS_INVALID_VALUE;
    mark_workspace(workspace, bytes);
    handle->has_workspace = true;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t) {
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm_64(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b,
                              std::int64_t m, std::int64_t n, std::int64_t k, const float* alpha, const float* a,
                              std::int64_t lda, const float* b, std::int64_t ldb, const float* beta, float* c,
                              std::int64_t ldc) {
    return submit(handle, Product{m,
                                  n,
                                  k,
                                  *alpha,
                                  *beta,
                                  {a, CUDA_R_32F, lda, transpose_a == CUBLAS_OP_T},
                                  {b, CUDA_R_32F, ldb, transpose_b == CUBLAS_OP_T},
                                  c,
                                  CUDA_R_32F,
                                  ldc,
                                  some_chunk(m, n)});
}
cublasStatus_t cublasSgemmStridedBatched_64(cublasHandle_t handle, cublasOperation_t transpose_a,
                                            cublasOperation_t transpose_b, std::int64_t m, std::int64_t n,
                                            std::int64_t k, const float* alpha, const float* a, std::int64_t lda,
                                            long long stride_a, const float* b, std::int64_t ldb, long long stride_b,
                                            const float* beta, float* c, std::int64_t ldc, long long stride_c,
                                            std::int64_t count) {
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    for (std::int64_t one = 0; one < count && status == CUBLAS_STATUS_SUCCESS; ++one)
        status = cublasSgemm_64(handle, transpose_a, transpose_b, m, n, k, alpha, a + one * stride_a, lda,
                                b + one * stride_b, ldb, beta, c + one * stride_c, ldc);
    return status;
}
cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b,
                               std::int64_t m, std::int64_t n, std::int64_t k, const void* alpha, const void* a,
                               cudaDataType type_a, std::int64_t lda, const void* b, cudaDataType type_b,
                               std::int64_t ldb, const void* beta, void* c, cudaDataType type_c, std::int64_t ldc,
                               cublasComputeType_t, cublasGemmAlgo_t) {
    return submit(handle, Product{m,
                                  n,
                                  k,
                                  *static_cast<const float*>(alpha),
                                  *static_cast<const float*>(beta),
                                  {a, type_a, lda, transpose_a == CUBLAS_OP_T},
                                  {b, type_b, ldb, transpose_b == CUBLAS_OP_T},
                                  c,
                                  type_c,
                                  ldc,
                                  some_chunk(m, n)});
}

// U⁻ᵀ·b alone, U upper: by substitution from the first row on.
cublasStatus_t cublasStrsm_64(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill,
                              cublasOperation_t transpose, cublasDiagType_t diagonal, std::int64_t m, std::int64_t n,
                              const float* alpha, const float* a, std::int64_t lda, float* b, std::int64_t ldb) {
    const std::lock_guard lock(runtime_lock());
    if (side != CUBLAS_SIDE_LEFT || fill != CUBLAS_FILL_MODE_UPPER || transpose != CUBLAS_OP_T ||
        diagonal != CUBLAS_DIAG_NON_UNIT || *alpha != 1)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (m < 0 || n < 0 || lda < std::max<std::int64_t>(1, m) || ldb < std::max<std::int64_t>(1, m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!is_ready(handle) || !is_device_pointer(a) || !is_device_pointer(b)) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    enqueue(handle->stream, [=] {
        const DeviceAccess access;
        require_inside(a, static_cast<std::size_t>((m - 1) * lda + m) * sizeof(float), "cublasStrsm's triangle");
        require_inside(b, static_cast<std::size_t>((n - 1) * ldb + m) * sizeof(float), "cublasStrsm's matrix");
        for (std::int64_t col = 0; col < n; ++col)
            for (std::int64_t row = 0; row < m; ++row) {
                float value = b[col * ldb + row];
                for (std::int64_t k = 0; k < row; ++k)
                    value -= a[row * lda + k] * b[col * ldb + k];
                b[col * ldb + row] = value / a[row * lda + row];
            }
    });
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = new cublasLtContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t, cudaDataType) {
    *description = new EmulatedMatmulDesc;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    delete description;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes) {
    if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
    (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? description->transpose_a : description->transpose_b) =
        *static_cast<const cublasOperation_t*>(value);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t cols, std::int64_t stride) {
    *layout = new EmulatedMatrixLayout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols), stride};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = new EmulatedMatmulPreference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
    if (bytes != sizeof(std::uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    const std::uint32_t number = *static_cast<const std::uint32_t*>(value);
    if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        preference->reductions = number;
    else
        preference->alignment = std::min(preference->alignment, number);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int wanted, cublasLtMatmulHeuristicResult_t* results, int* found) {
    *found = 0;
    if (!is_product(*product, *a, *b, *d)) return CUBLAS_STATUS_INVALID_VALUE;
    for (std::uint64_t id = 0; id < std::size(algorithms) && *found < wanted; ++id)
        if (is_offered(algorithms[id], *d, *preference))
            results[(*found)++] = {{{id}}, 0, CUBLAS_STATUS_SUCCESS, 1, {}};
    return *found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
    if (!is_product(*product, *a, *b, *d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!takes(algorithms[algorithm->data[0]], *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {*algorithm, 0, CUBLAS_STATUS_SUCCESS, 1, {}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t layout_a, const void* b, cublasLtMatrixLayout_t layout_b,
                              const void* beta, const void* c, cublasLtMatrixLayout_t layout_c, void* d,
                              cublasLtMatrixLayout_t layout_d, const cublasLtMatmulAlgo_t* algorithm, void*,
                              std::size_t, cudaStream_t stream) {
    const Algorithm& chosen = algorithms[algorithm->data[0]];
    const bool turned_a = description->transpose_a == CUBLAS_OP_T;
    const bool turned_b = description->transpose_b == CUBLAS_OP_T;
    const std::int64_t k = turned_a ? layout_a->rows : layout_a->cols;
    if (c != d || layout_c != layout_d || !is_product(*description, *layout_a, *layout_b, *layout_d))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!takes(chosen, *layout_d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (layout_d->cols >= refusals().calls_from_rows) return CUBLAS_STATUS_INVALID_VALUE;
    const auto aligned = [&](const void* data, cublasLtMatrixLayout_t layout) {
        return reinterpret_cast<std::uintptr_t>(data) % chosen.alignment == 0 &&
               layout->stride * static_cast<std::int64_t>(size_of(layout->type)) % chosen.alignment == 0;
    };
    if (!aligned(a, layout_a) || !aligned(b, layout_b) || !aligned(d, layout_d))
        fail("cublasLtMatmul got an algorithm that needs rows aligned to %u bytes", chosen.alignment);
    return submit(stream, {layout_d->rows,
                           layout_d->cols,
                           k,
                           *static_cast<const float*>(alpha),
                           *static_cast<const float*>(beta),
                           {a, layout_a->type, layout_a->stride, turned_a},
                           {b, layout_b->type, layout_b->stride, turned_b},
                           d,
                           layout_d->type,
                           layout_d->stride,
                           chosen.chunk != 0 ? chosen.chunk : some_chunk(layout_d->rows, layout_d->cols)});
}
