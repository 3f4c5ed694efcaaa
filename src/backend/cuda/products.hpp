// Matrix products by cuBLAS, row-major, float32 accumulation, no TF32.
//
// cuBLAS picks a kernel by a product's sizes, and some kernels sum in another order than others. Where a row's result
// must not depend on the rows beside it (the solver's contract), `fixed_order` asks cuBLASLt for kernels of a product
// of many rows, and uses the first that takes any number of rows for every number of rows.
#pragma once

#include <cublasLt.h>
#include <cublas_v2.h>

#include <compare>
#include <cstdint>
#include <map>

#include "backend/cuda/memory.hpp"
#include "backend/cuda/scratch.hpp"

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
    /// The same in an order of sums that does not depend on the number of rows: a row of c has the same bytes whatever
    /// rows are beside it.
    /// @throws Failure that names the sizes if cuBLASLt has no kernel for them
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
    /// What an algorithm is chosen by: everything but the rows.
    struct Shape {
        Transpose transpose_b;
        bool aligned;  // rows of a, b and c to 16 bytes
        std::int64_t cols, inner;
        auto operator<=>(const Shape&) const = default;
    };
    bool takes(const Layouts& layouts, const cublasLtMatmulAlgo_t& algorithm) const;
    cublasLtMatmulAlgo_t find_algorithm(const Shape& shape) const;

    Memory& memory_;
    Buffer workspace_;
    cublasHandle_t handle_ = nullptr;
    cublasLtHandle_t lt_handle_ = nullptr;
    std::map<Shape, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace fairgptq::cuda
