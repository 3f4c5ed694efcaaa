// The tiles on a matrix's diagonal, where no BLAS kernel is fast: factored and inverted in registers.
#pragma once

#include <cstdint>

#include "support/views.hpp"

namespace fairgptq::cholesky_leaf {

constexpr std::int64_t side = 64;  // largest tile

/// Factors A = U·Uᵀ in place and inverts the factor. Only the upper triangles are read and written.
/// @param matrix            [n, n], n ≤ side
/// @param original_diagonal [n]: a pivot that has lost all its digits against it counts as not positive
/// @param inverse           [n, n], written: U⁻¹ with zeros below its diagonal
/// @returns false if a pivot is not positive; both are then undefined
bool factor(MatrixView<float> matrix, const float* original_diagonal, MatrixView<float> inverse);

/// U ← U⁻¹ in place, [n, n], n ≤ side. Only the upper triangle is read and written.
void invert(MatrixView<float> matrix);

}  // namespace fairgptq::cholesky_leaf
