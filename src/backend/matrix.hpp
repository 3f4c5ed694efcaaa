// Dense float32 products around the column loop: the debiased target and the figures of a module's record.
#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

class MatrixOperations {
  public:
    virtual ~MatrixOperations() = default;

    /// out[i, j] = hessian[p_i, p_j] + alpha · covariance[p_i, p_j] + (i == j ? damping : 0), p = order.
    /// A column with hessian and covariance both 0 on the diagonal ("dead") gets 1 there, so that the factorization
    /// holds.
    /// @param hessian, covariance [n, n]; covariance may be empty (then alpha is not used)
    /// @param order host, [n], a permutation; @param out [n, n], not aliasing
    virtual void combine(MatrixView<const float> hessian, MatrixView<const float> covariance, float alpha,
                         float damping, std::span<const std::int32_t> order, MatrixView<float> out) = 0;

    /// Moves the columns of each row: out[r, i] = in[r, order[i]] (gather) as float32; columns of `in` whose `dead`
    /// flag is set become 0.
    /// @param order, dead host, [n]; @param dead may be empty
    virtual void gather_columns(TensorView in, std::span<const std::int32_t> order, std::span<const std::uint8_t> dead,
                                MatrixView<float> out) = 0;

    /// out[r, i] = in[r, order[i]] for codes, one a byte.
    /// @param in, out [rows, n], not aliasing; @param order host, [n], a permutation
    virtual void gather_codes(MatrixView<const std::uint8_t> in, std::span<const std::int32_t> order,
                              MatrixView<std::uint8_t> out) = 0;

    /// target −= alpha · (weights · covariance) · RᵀR: the continuous minimiser W* = W − αWC(UUᵀ)⁻¹, R = U⁻¹.
    /// @param weights    [rows, n] in natural column order; @param covariance [n, n] in natural order
    /// @param alpha      above 0
    /// @param inverse    R [n, n] upper triangular, in the order `order`
    /// @param order      host, [n]
    /// @param target     [rows, n] in the order `order`, holding W on entry
    /// @param bias       host, [ceil(rows / 64)]: the weights' quadratic_forms by `covariance`, which cost nothing here
    /// Source: docs/method.md "Solvers"; Fair-GPTQ (arXiv 2509.15206).
    virtual void shift_target(MatrixView<const float> weights, MatrixView<const float> covariance, float alpha,
                              MatrixView<const float> inverse, std::span<const std::int32_t> order,
                              MatrixView<float> target, std::span<double> bias) = 0;

    /// out = in, either with rows at any distance; not overlapping.
    virtual void copy(MatrixView<const float> in, MatrixView<float> out) = 0;

    /// out = a − b. @param out may be `b`
    virtual void subtract(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out) = 0;

    /// result[k] = Σ over the rows of tile k (64 rows each) of a M aᵀ, in float64; a tile is summed in a fixed order,
    /// so a matrix's figure does not depend on how its rows were shared.
    /// @param matrix [rows, n]; @param symmetric [n, n]; @param result host, [ceil(rows / 64)]
    virtual void quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                 std::span<double> result) = 0;

    /// result[k] = Σ (a − b)² over tile k of 64 rows, in float64 and in a fixed order; not 0 if anything is not finite.
    /// @param b as a, or empty: then Σ a²
    /// @param result host, [ceil(rows / 64)]
    virtual void tile_squares(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) = 0;

    /// result[c] = Σ over tiles of 64 rows, in their order, of Σ (a[r, c] − b[r, c])² over a tile's rows, in float64, a
    /// tile's sum rounded to float32.
    /// @param b as a; @param result host, [n], written
    virtual void column_errors(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) = 0;

    /// The diagonal of a square matrix, to the host.
    virtual void diagonal(MatrixView<const float> matrix, std::span<float> result) = 0;
};

}  // namespace fairgptq
