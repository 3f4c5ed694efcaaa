// Matrix products by cuBLAS, row-major, float32 accumulation.
//
// A large float32 product goes to the tensor cores as six of bfloat16: x = x₀ + x₁ + x₂, 8 bits of significand each, is
// exact, and a·b = a₀b₂ + a₁b₁ + a₂b₀ + a₀b₁ + a₁b₀ + a₀b₀ but for 2⁻²³ of |a||b|, less than what summing in float32
// loses (Henry, Tang and Heinecke, arXiv 1904.06376). All six are one product of six times the inner size, a sixth of
// the tensor cores' rate and some 2.5 times that of float32 on an H100. They are summed in this order, smallest first.
//
// cuBLAS picks a kernel by a product's sizes, and some kernels sum in another order than others. Where a row's result
// must not depend on the rows beside it (the solver's contract), `fixed_order` asks cuBLASLt for kernels of a product
// of many rows, then of few, and uses the first that takes every power of 2 for every number of rows: in pieces where
// it refuses the whole. Where none takes those up to 64, cuBLAS takes the rows in copied blocks of 64, the last one
// filled up: the same call whatever the rows. That is slower, and said once.
#pragma once

#include <cublasLt.h>
#include <cublas_v2.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "backend/cuda/memory.hpp"
#include "backend/cuda/scratch.hpp"

namespace fairgptq::cuda {

enum class Transpose : bool { no, yes };

/// Which products are split, and into pieces of what size; parameters for the tests' sake.
struct SplitSizes {
    std::int64_t least = split_least;  // columns and inner size, at least
    std::int64_t side = split_side;    // rows and columns of a piece of the result
    std::int64_t inner = split_inner;  // of the inner size, at once
};

class Products {
  public:
    /// Everything runs on the memory's stream, in a workspace of its own: the same call gives the same bytes.
    /// @param only_blocks whether fixed_order asks for no kernels; for the tests' sake
    explicit Products(Memory& memory, SplitSizes split = {}, bool only_blocks = false);
    ~Products();
    Products(const Products&) = delete;
    Products& operator=(const Products&) = delete;

    /// c = alpha · a · op(b) + beta · c, float32 or nearly as accurate.
    void multiply(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b, float beta,
                  MatrixView<float> c);
    /// The same in an order of sums that does not depend on the number of rows: a row of c has the same bytes whatever
    /// rows are beside it.
    void fixed_order(Transpose transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b,
                     float beta, MatrixView<float> c);
    /// c = op(a) · op(b) + beta · c for any element types: bfloat16 and float16 on tensor cores, and float32 aᵀ · b,
    /// which is nearly as accurate there. a and b are of one type.
    void multiply_any(Transpose transpose_a, Transpose transpose_b, TensorView a, TensorView b, float beta,
                      TensorView c);
    /// right = right · lower⁻ᵀ; what `lower` has above its diagonal is not read.
    void solve_transposed(MatrixView<const float> lower, MatrixView<float> right);
    /// `count` products of blocks whose places are `stride_*` elements apart.
    void multiply_batch(float alpha, MatrixView<const float> a, std::int64_t stride_a, MatrixView<const float> b,
                        std::int64_t stride_b, MatrixView<float> c, std::int64_t stride_c, std::int64_t count);

  private:
    struct Layouts;
    /// What an algorithm is chosen by: everything but the rows.
    struct Shape {
        DType type;
        Transpose transpose_b;
        bool aligned;  // rows of a, b and c to 16 bytes
        std::int64_t cols, inner, stride_a, stride_b, stride_c;
        auto operator<=>(const Shape&) const = default;
    };
    void product(Transpose transpose_a, Transpose transpose_b, float alpha, TensorView a, TensorView b, float beta,
                 TensorView c);
    /// Whether a product is split: by its columns and inner size, whatever its rows.
    bool is_split(MatrixView<const float> a, MatrixView<const float> c) const;
    /// @param transpose_a where it is yes, the order of sums may depend on the rows
    void multiply_split(Transpose transpose_a, Transpose transpose_b, float alpha, MatrixView<const float> a,
                        MatrixView<const float> b, float beta, MatrixView<float> c);
    /// a and b of one type.
    void one_fixed_order(Transpose transpose_b, float alpha, TensorView a, TensorView b, float beta,
                         MatrixView<float> c);
    /// @returns whether cuBLASLt takes the product; where it does not, c is as it was
    bool multiply_by(const cublasLtMatmulAlgo_t& algorithm, Transpose transpose_b, float alpha, TensorView a,
                     TensorView b, float beta, MatrixView<float> c);
    void multiply_in_blocks(Transpose transpose_b, float alpha, TensorView a, TensorView b, float beta,
                            MatrixView<float> c);
    bool takes(const Layouts& layouts, const cublasLtMatmulAlgo_t& algorithm) const;
    /// Kernels that cuBLASLt would choose for a product, the fastest first, of those that add a sum up in one go.
    std::vector<cublasLtMatmulAlgo_t> offered(const Layouts& layouts, std::uint32_t alignment) const;
    std::optional<cublasLtMatmulAlgo_t> find_algorithm(const Shape& shape);
    /// Of the first product that goes in blocks.
    void say_once(const Shape& shape);

    Memory& memory_;
    SplitSizes split_;
    bool only_blocks_;
    bool said_ = false;
    Buffer workspace_;
    Scratch first_parts_{memory_}, second_parts_{memory_}, block_{memory_};
    cublasHandle_t handle_ = nullptr;
    cublasLtHandle_t lt_handle_ = nullptr;
    std::map<Shape, std::optional<cublasLtMatmulAlgo_t>> algorithms_;  // none: in blocks
};

}  // namespace fairgptq::cuda
