#pragma once

#include "backend/peers.hpp"
#include "support/views.hpp"

namespace fairgptq {

class CholeskyOperations {
  public:
    virtual ~CholeskyOperations() = default;

    /// Factors a symmetric positive definite matrix as U·Uᵀ with U upper triangular (the Cholesky factor of the
    /// order-reversed matrix), in place, float32. The strictly lower triangle is zero afterwards.
    /// @param matrix [n, n], both triangles filled
    /// @param peers  ranks with the same matrix, which share the work if there is enough of it
    /// @returns false, at every rank, if the matrix is not positive definite to float32's precision; it is then
    /// undefined
    /// Source: docs/method.md "The column loop"; one Cholesky and one triangular inverse instead of GPTQ's two and one.
    virtual bool factor_upper(MatrixView<float> matrix, Peers& peers) = 0;

    /// Inverts an upper triangular matrix with nonzero diagonal, in place; the strictly lower triangle stays zero.
    virtual void invert_upper(MatrixView<float> matrix, Peers& peers) = 0;

    /// One rank alone.
    bool factor_upper(MatrixView<float> matrix) {
        Peers alone;
        return factor_upper(matrix, alone);
    }
    void invert_upper(MatrixView<float> matrix) {
        Peers alone;
        invert_upper(matrix, alone);
    }
};

}  // namespace fairgptq
