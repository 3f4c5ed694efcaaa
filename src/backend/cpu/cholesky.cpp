// Recursive halving: nearly all arithmetic lands in large matrix products, whatever the size, and the recursion ends in
// tiles that stay in the first-level cache. Tile sizes depend on the matrix alone, so results depend neither on the
// threads nor on the ranks, which share what is large; each does the rest for itself.
#include <algorithm>
#include <limits>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/blas.hpp"
#include "backend/cpu/cholesky_leaf.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t leaf = cholesky_leaf::side;
constexpr std::int64_t shared_least = 256;  // columns of a half whose work ranks share

std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
    return (value + divisor - 1) / divisor;
}

/// Side of the tiles that an [n, n] update is cut into: small enough for many threads, large enough for the BLAS
/// kernels.
std::int64_t tile_for(std::int64_t n) {
    return n >= 1024 ? 256 : n >= 256 ? 128 : 64;
}

/// Inverses of the tiles of U's diagonal, one behind the other.
class LeafInverses {
  public:
    explicit LeafInverses(std::int64_t n) : values_(static_cast<std::size_t>(ceil_div(n, leaf) * leaf * leaf)) {}
    MatrixView<float> at(std::int64_t begin, std::int64_t size) {
        return {values_.data() + begin * leaf, size, size, leaf};
    }

  private:
    std::vector<float> values_;
};

/// Columns of the first of the two parts that an [n, n] triangle is halved into; the second is whole leaves.
std::int64_t first_half(std::int64_t n) {
    return n - ceil_div(n / 2, leaf) * leaf;
}

/// A part of the matrix along its diagonal.
struct Triangle {
    std::int64_t begin, size;
    Triangle first() const { return {begin, first_half(size)}; }
    Triangle second() const { return {begin + first_half(size), size - first_half(size)}; }
};

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

struct Factorization {
    const float* original_diagonal;
    LeafInverses inverses;
    Peers& peers;

    /// Factors the upper triangle of rows and columns from `begin`: last half first, A12 ← A12·U22⁻ᵀ, A11 −= A12·A12ᵀ,
    /// then the first half.
    bool factor(MatrixView<float> a, std::int64_t begin);
};

bool Factorization::factor(MatrixView<float> a, std::int64_t begin) {
    const std::int64_t n = a.rows;
    if (n <= leaf) return cholesky_leaf::factor(a, original_diagonal + begin, inverses.at(begin, n));
    const std::int64_t first = first_half(n);
    const std::int64_t last = n - first;
    const bool shared = first >= shared_least;
    const MatrixView<float> corner = a.block(first, first, last, last);
    bool factored = factor(corner, begin + first);
    if (shared) factored = peers.agree(factored);
    if (!factored) return false;

    const MatrixView<float> side = a.block(0, first, first, last);
    const std::int64_t tile = tile_for(first);
    const std::int64_t strip = std::max(leaf, tile / 2);
    const std::int64_t strips = ceil_div(first, strip);
    const auto strip_at = [&](std::int64_t i) { return side.rows_from(i * strip, std::min(strip, first - i * strip)); };
    Shares solved(peers, shared, std::vector<std::int64_t>(static_cast<std::size_t>(strips), 1));
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < strips; ++i)
        if (solved.mine(i)) solve_strip(corner, begin + first, inverses, strip_at(i));
    solved.exchange(strip_at);

    const std::int64_t tiles = ceil_div(first, tile);
    const auto tile_at = [&](std::int64_t i) { return side.rows_from(i * tile, std::min(tile, first - i * tile)); };
    std::vector<std::int64_t> costs;
    for (std::int64_t i = 0; i < tiles; ++i)
        costs.push_back(tiles - i);
    Shares updated(peers, shared, costs);
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (std::int64_t i = 0; i < tiles; ++i) {
        for (std::int64_t j = 0; j < tiles; ++j) {
            if (j < i || !updated.mine(i)) continue;
            const MatrixView<float> above = tile_at(i), below = tile_at(j);
            const MatrixView<float> product = a.block(i * tile, j * tile, above.rows, below.rows);
            if (i == j) {
                blas::subtract_gram_upper(above, product);
            } else {
                blas::gemm(blas::Transpose::no, blas::Transpose::yes, -1, above, below, 1, product);
            }
        }
    }
    updated.exchange([&](std::int64_t i) { return a.block(i * tile, i * tile, tile_at(i).rows, first - i * tile); });
    return factor(a.block(0, 0, first, first), begin);
}

}  // namespace

bool CpuBackend::factor_upper(MatrixView<float> matrix, Peers& peers) {
    if (matrix.rows != matrix.cols)
        throw Failure("factor_upper: a square matrix was expected, not {} x {}", matrix.rows, matrix.cols);
    const std::int64_t n = matrix.rows;
    std::vector<float> original(static_cast<std::size_t>(n));
    diagonal(matrix, original);
    Factorization work{original.data(), LeafInverses(n), peers};
    if (!peers.agree(work.factor(matrix, 0))) return false;
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < n; ++i)
        std::fill(matrix.row(i), matrix.row(i) + i, 0.0F);
    return true;
}

// Bottom up over the tree of halves: [U1 U12; 0 U2]⁻¹ = [U1⁻¹ −U1⁻¹·U12·U2⁻¹; 0 U2⁻¹], all nodes of a level at once.
void CpuBackend::invert_upper(MatrixView<float> matrix, Peers& peers) {
    if (matrix.rows != matrix.cols)
        throw Failure("invert_upper: a square matrix was expected, not {} x {}", matrix.rows, matrix.cols);
    std::vector<Triangle> leaves;
    std::vector<std::vector<Triangle>> levels{{}};
    (matrix.rows > leaf ? levels.back() : leaves).push_back({0, matrix.rows});
    while (!levels.back().empty()) {
        std::vector<Triangle> halves;
        for (const Triangle& whole : levels.back())
            for (const Triangle& half : {whole.first(), whole.second()})
                (half.size > leaf ? halves : leaves).push_back(half);
        levels.push_back(std::move(halves));
    }
    const auto inverse = [&](const Triangle& part) {
        return matrix.block(part.begin, part.begin, part.size, part.size);
    };
#pragma omp parallel for schedule(dynamic)
    for (const Triangle& part : leaves)
        cholesky_leaf::invert(inverse(part));

    struct Strip {
        Triangle whole;
        std::int64_t begin, size;  // rows of U12, or columns
    };
    for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
        for (const bool right : {true, false}) {
            std::vector<Strip> strips;
            std::vector<std::int64_t> costs;
            std::int64_t largest = 0;
            for (const Triangle& whole : *level) {
                const std::int64_t first = whole.first().size, second = whole.second().size;
                const std::int64_t side = right ? first : second;
                const std::int64_t step = std::clamp<std::int64_t>(side / 8 / leaf * leaf, leaf, 256);
                largest = std::max(largest, first);
                for (std::int64_t begin = 0; begin < side; begin += step) {
                    const std::int64_t size = std::min(step, side - begin);
                    strips.push_back({whole, begin, size});
                    costs.push_back(size * (right ? second * second : first * first));
                }
            }
            const auto count = std::ssize(strips);
            const auto block_of = [&](std::int64_t i) {
                const auto& [whole, begin, size] = strips[static_cast<std::size_t>(i)];
                const Triangle first = whole.first(), second = whole.second();
                const MatrixView<float> corner = matrix.block(first.begin, second.begin, first.size, second.size);
                return right ? corner.rows_from(begin, size) : corner.block(0, begin, first.size, size);
            };
            Shares shares(peers, largest >= shared_least, costs);
#pragma omp parallel for schedule(dynamic)
            for (std::int64_t i = 0; i < count; ++i) {
                if (!shares.mine(i)) continue;
                const Triangle& whole = strips[static_cast<std::size_t>(i)].whole;
                if (right)
                    blas::multiply_right_upper(1, inverse(whole.second()), block_of(i));
                else
                    blas::multiply_left_upper(-1, inverse(whole.first()), block_of(i));
            }
            shares.exchange(block_of);
        }
    }
}

}  // namespace fairgptq
