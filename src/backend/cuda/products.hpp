// Matrix products by cuBLAS, row-major, float32 accumulation, no TF32.
//
// cuBLAS picks a kernel by a product's sizes, and some kernels sum in another order than others. Where a row's result
// must not depend on the rows beside it (the solver's contract), `fixed_order` therefore uses one kernel for every
// size: the one that cuBLASLt finds best for a large product without split sums.
#pragma once

#include <cublasLt.h>
#include <cublas_v2.h>

#include <array>
#include <cstdint>
#include <optional>

#include "backend/cuda/memory.hpp"

namespace fairgptq::cuda {

enum class Transpose : bool { no, yes };

class Products {
  public:
    /// Everything runs on the memory's stream, in a workspace of its own: the same call gives the same bytes.
    explicit Products(Memory& memory);
    ~Products();
    Products(const Products&) = delete;
    Products& operator=(const Products&) = delete;

    /// c = alpha · op(a) · op(b) + beta · c, float32.
    void multiply(Transpose transpose_a, Transpose transpose_b, float alpha, MatrixView<const float> a,
                  MatrixView<const float> b, float beta, MatrixView<float> c);
    /// The same in an order of sums that depends on the inner size alone: a row of c has the same bytes whatever the
    /// number of rows.
    void fixed_order(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b,
                     float beta, MatrixView<float> c);
    /// The same as multiply for any element types: bfloat16 and float16 on tensor cores. a and b are of one type.
    void multiply_any(Transpose transpose_a, Transpose transpose_b, TensorView a, TensorView b, float beta,
                      TensorView c);
    /// `count` products of blocks whose places are `stride_*` elements apart.
    void multiply_batch(float alpha, MatrixView<const float> a, std::int64_t stride_a, MatrixView<const float> b,
                        std::int64_t stride_b, MatrixView<float> c, std::int64_t stride_c, std::int64_t count);

  private:
    struct Layouts;
    bool use_algorithm(const Layouts& layouts, const cublasLtMatmulAlgo_t& algorithm) const;
    cublasLtMatmulAlgo_t find_algorithm(const Layouts& layouts, std::uint32_t alignment) const;

    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20U;
    Memory& memory_;
    Buffer workspace_;
    cublasHandle_t handle_ = nullptr;
    cublasLtHandle_t lt_handle_ = nullptr;
    // By transposition of b and by whether rows are aligned to 16 bytes.
    std::array<std::optional<cublasLtMatmulAlgo_t>, 4> algorithms_;
};

}  // namespace fairgptq::cuda
