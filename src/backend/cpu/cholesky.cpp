// Recursive halving: nearly all arithmetic lands in large matrix products, whatever the size, and the recursion ends in
// tiles that stay in the first-level cache. Tile sizes depend on the matrix alone, so results do not depend on the
// threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/blas.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t leaf = 64;

std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
    return (value + divisor - 1) / divisor;
}

/// Side of the tiles that an [n, n] update is cut into: small enough for many threads, large enough for the BLAS
/// kernels.
std::int64_t tile_for(std::int64_t n) {
    return n >= 1024 ? 256 : n >= 256 ? 128 : 64;
}

/// A = U·Uᵀ of one tile. A pivot that has lost all its digits against the diagonal it started from counts as not
/// positive.
bool factor_leaf(MatrixView<float> a, const float* original_diagonal) {
    constexpr float epsilon = std::numeric_limits<float>::epsilon();
    float column[leaf];
    for (std::int64_t k = a.rows - 1; k >= 0; --k) {
        const float pivot = a(k, k);
        if (!(pivot > epsilon * original_diagonal[k]) || !std::isfinite(pivot)) return false;
        const float root = std::sqrt(pivot);
        a(k, k) = root;
        for (std::int64_t i = 0; i < k; ++i) {
            column[i] = a(i, k) / root;
            a(i, k) = column[i];
        }
        for (std::int64_t i = 0; i < k; ++i) {
            float* row = a.row(i);
            const float factor = column[i];
#pragma omp simd
            for (std::int64_t j = i; j < k; ++j)
                row[j] -= factor * column[j];
        }
    }
    return true;
}

/// Rows from the last to the first: row i of U⁻¹ is −(U's row i right of the diagonal · the rows of U⁻¹ below) / U_ii.
void invert_leaf(MatrixView<float> u) {
    const std::int64_t n = u.rows;
    float sums[leaf];
    for (std::int64_t i = n - 1; i >= 0; --i) {
        float* row = u.row(i);
        const float inverse = 1 / row[i];
        std::fill(sums, sums + n, 0.0F);
        for (std::int64_t k = i + 1; k < n; ++k) {
            const float factor = row[k];
            const float* below = u.row(k);
#pragma omp simd
            for (std::int64_t j = k; j < n; ++j)
                sums[j] += factor * below[j];
        }
        row[i] = inverse;
        for (std::int64_t j = i + 1; j < n; ++j)
            row[j] = -inverse * sums[j];
    }
}

/// Inverses of the tiles of U's diagonal, one behind the other.
class LeafInverses {
  public:
    explicit LeafInverses(std::int64_t n) : values_(static_cast<std::size_t>(ceil_div(n, leaf) * leaf * leaf)) {}
    MatrixView<float> at(std::int64_t begin, std::int64_t size) {
        return {values_.data() + begin * leaf, size, size, leaf};
    }
    void set(std::int64_t begin, MatrixView<const float> factor) {
        const MatrixView<float> inverse = at(begin, factor.rows);
        for (std::int64_t i = 0; i < factor.rows; ++i)
            for (std::int64_t j = i; j < factor.cols; ++j)
                inverse(i, j) = factor(i, j);
        invert_leaf(inverse);
    }

  private:
    std::vector<float> values_;
};

std::int64_t first_half(std::int64_t n) {
    return n - ceil_div(n / 2, leaf) * leaf;
}

/// strip ← strip·U⁻ᵀ. BLAS's own triangular solve reaches a fifth of the rate of products with the inverted tiles.
void solve_strip(MatrixView<const float> factor, std::int64_t begin, LeafInverses& inverses, MatrixView<float> strip) {
    const std::int64_t n = factor.rows;
    if (n <= leaf) {
        blas::multiply_right_upper(1, inverses.at(begin, n), strip, blas::Transpose::yes);
        return;
    }
    const std::int64_t first = first_half(n);
    const MatrixView<float> left = strip.block(0, 0, strip.rows, first);
    const MatrixView<float> right = strip.block(0, first, strip.rows, n - first);
    solve_strip(factor.block(first, first, n - first, n - first), begin + first, inverses, right);
    blas::gemm(blas::Transpose::no, blas::Transpose::yes, -1, right, factor.block(0, first, first, n - first), 1, left);
    solve_strip(factor.block(0, 0, first, first), begin, inverses, left);
}

/// Factors the upper triangle of rows and columns from `begin`: last half first, A12 ← A12·U22⁻ᵀ, A11 −= A12·A12ᵀ, then
/// the first half.
bool factor(MatrixView<float> a, std::int64_t begin, const float* original_diagonal, LeafInverses& inverses) {
    const std::int64_t n = a.rows;
    if (n <= leaf) {
        if (!factor_leaf(a, original_diagonal + begin)) return false;
        inverses.set(begin, a);
        return true;
    }
    const std::int64_t first = first_half(n);
    const std::int64_t last = n - first;
    const MatrixView<float> corner = a.block(first, first, last, last);
    if (!factor(corner, begin + first, original_diagonal, inverses)) return false;

    const MatrixView<float> side = a.block(0, first, first, last);
    const std::int64_t tile = tile_for(first);
    const std::int64_t strip = std::max(leaf, tile / 2);
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t row = 0; row < first; row += strip)
        solve_strip(corner, begin + first, inverses, side.rows_from(row, std::min(strip, first - row)));

    const std::int64_t tiles = ceil_div(first, tile);
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (std::int64_t i = 0; i < tiles; ++i) {
        for (std::int64_t j = 0; j < tiles; ++j) {
            if (j < i) continue;
            const MatrixView<float> above = side.rows_from(i * tile, std::min(tile, first - i * tile));
            const MatrixView<float> below = side.rows_from(j * tile, std::min(tile, first - j * tile));
            const MatrixView<float> product = a.block(i * tile, j * tile, above.rows, below.rows);
            if (i == j) {
                blas::subtract_gram_upper(above, product);
            } else {
                blas::gemm(blas::Transpose::no, blas::Transpose::yes, -1, above, below, 1, product);
            }
        }
    }
    return factor(a.block(0, 0, first, first), begin, original_diagonal, inverses);
}

}  // namespace

bool CpuBackend::factor_upper(MatrixView<float> matrix) {
    if (matrix.rows != matrix.cols)
        throw Failure("factor_upper: a square matrix was expected, not {} x {}", matrix.rows, matrix.cols);
    const std::int64_t n = matrix.rows;
    std::vector<float> original(static_cast<std::size_t>(n));
    diagonal(matrix, original);
    LeafInverses inverses(n);
    if (!factor(matrix, 0, original.data(), inverses)) return false;
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < n; ++i)
        std::fill(matrix.row(i), matrix.row(i) + i, 0.0F);
    return true;
}

// Bottom up: the tiles of the diagonal, then pairs of neighbours: [U1 U12; 0 U2]⁻¹ = [U1⁻¹ −U1⁻¹·U12·U2⁻¹; 0 U2⁻¹].
void CpuBackend::invert_upper(MatrixView<float> matrix) {
    if (matrix.rows != matrix.cols)
        throw Failure("invert_upper: a square matrix was expected, not {} x {}", matrix.rows, matrix.cols);
    const std::int64_t n = matrix.rows;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t begin = 0; begin < n; begin += leaf) {
        const std::int64_t size = std::min(leaf, n - begin);
        invert_leaf(matrix.block(begin, begin, size, size));
    }
    for (std::int64_t half = leaf; half < n; half *= 2) {
        const std::int64_t strip = std::clamp<std::int64_t>(half / 8, leaf, 256);
        const std::int64_t strips = ceil_div(half, strip);
        const std::int64_t pairs = ceil_div(n - half, 2 * half);
        for (const bool right : {true, false}) {
#pragma omp parallel for collapse(2) schedule(dynamic)
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                for (std::int64_t s = 0; s < strips; ++s) {
                    const std::int64_t begin = pair * 2 * half;
                    const std::int64_t middle = begin + half;
                    const std::int64_t second = std::min(half, n - middle);
                    if (right) {
                        const std::int64_t rows = std::min(strip, half - s * strip);
                        blas::multiply_right_upper(1, matrix.block(middle, middle, second, second),
                                                   matrix.block(begin + s * strip, middle, rows, second));
                    } else if (s * strip < second) {
                        const std::int64_t cols = std::min(strip, second - s * strip);
                        blas::multiply_left_upper(-1, matrix.block(begin, begin, half, half),
                                                  matrix.block(begin, middle + s * strip, half, cols));
                    }
                }
            }
        }
    }
}

}  // namespace fairgptq
