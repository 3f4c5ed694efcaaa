// A tile is a 4 × 4 grid of blocks of 16 columns, one vector register wide: all but the blocks on its diagonal is
// products of such blocks, eight rows at a time, so that each loaded vector is used eight times and sums stay in
// registers.
#include "backend/cpu/cholesky_leaf.hpp"

#include <array>
#include <cmath>
#include <limits>

namespace fairgptq::cholesky_leaf {
namespace {

constexpr std::int64_t width = 16;
constexpr std::int64_t blocks = side / width;
using Lanes = float __attribute__((vector_size(width * sizeof(float))));
using Block = std::array<Lanes, width>;  // one row a vector

struct alignas(64) Tile {
    float values[side][side];
    Lanes& at(std::int64_t row, std::int64_t block) { return reinterpret_cast<Lanes&>(values[row][block * width]); }
};

/// A smaller matrix fills the tile's last rows and columns; before them stands the identity, which its factor leaves
/// be.
void load_symmetric(MatrixView<const float> matrix, Tile& tile) {
    const std::int64_t pad = side - matrix.rows;
    for (std::int64_t i = 0; i < side; ++i)
        for (std::int64_t j = i; j < side; ++j)
            tile.values[i][j] = tile.values[j][i] = i >= pad ? matrix(i - pad, j - pad) : i == j ? 1.0F : 0.0F;
}

void load_upper(MatrixView<const float> matrix, Tile& tile) {
    const std::int64_t pad = side - matrix.rows;
    for (std::int64_t i = 0; i < side; ++i)
        for (std::int64_t j = 0; j < side; ++j)
            tile.values[i][j] = j < i ? 0.0F : i >= pad ? matrix(i - pad, j - pad) : i == j ? 1.0F : 0.0F;
}

void store_upper(const Tile& tile, MatrixView<float> matrix) {
    const std::int64_t pad = side - matrix.rows;
    for (std::int64_t i = 0; i < matrix.rows; ++i)
        for (std::int64_t j = i; j < matrix.rows; ++j)
            matrix(i, j) = tile.values[i + pad][j + pad];
}

/// sums[r] ±= Σ_k factors[r][k]·rows[k] for eight rows.
template <bool subtract>
inline void multiply(const float* factors, std::int64_t stride, const Lanes* rows, std::int64_t row_stride,
                     std::int64_t count, Lanes* sums, std::int64_t sum_stride) {
    Lanes s0 = sums[0], s1 = sums[sum_stride], s2 = sums[2 * sum_stride], s3 = sums[3 * sum_stride],
          s4 = sums[4 * sum_stride], s5 = sums[5 * sum_stride], s6 = sums[6 * sum_stride], s7 = sums[7 * sum_stride];
    for (std::int64_t k = 0; k < count; ++k) {
        const Lanes row = subtract ? -rows[k * row_stride] : rows[k * row_stride];
        s0 += factors[k] * row;
        s1 += factors[stride + k] * row;
        s2 += factors[2 * stride + k] * row;
        s3 += factors[3 * stride + k] * row;
        s4 += factors[4 * stride + k] * row;
        s5 += factors[5 * stride + k] * row;
        s6 += factors[6 * stride + k] * row;
        s7 += factors[7 * stride + k] * row;
    }
    sums[0] = s0, sums[sum_stride] = s1, sums[2 * sum_stride] = s2, sums[3 * sum_stride] = s3;
    sums[4 * sum_stride] = s4, sums[5 * sum_stride] = s5, sums[6 * sum_stride] = s6, sums[7 * sum_stride] = s7;
}
constexpr std::int64_t rows_at_once = 8;
constexpr std::int64_t lanes_per_row = side / width;

/// Rows of Uᵀ of the symmetric block d = U·Uᵀ, from the last to the first.
bool factor_block(Block d, const float* smallest_pivots, Block& transposed) {
    Lanes index;
    for (std::int64_t i = 0; i < width; ++i)
        index[i] = static_cast<float>(i);
    for (std::int64_t k = width - 1; k >= 0; --k) {
        const float pivot = d[static_cast<std::size_t>(k)][k];
        if (!(pivot > smallest_pivots[k]) || !std::isfinite(pivot)) return false;
        const Lanes scaled = d[static_cast<std::size_t>(k)] / std::sqrt(pivot);
        const Lanes column = index <= static_cast<float>(k) ? scaled : Lanes{};
        transposed[static_cast<std::size_t>(k)] = column;
        alignas(64) float factors[width];
        reinterpret_cast<Lanes&>(factors[0]) = column;
        for (std::int64_t i = 0; i < k; ++i)
            d[static_cast<std::size_t>(i)] -= factors[i] * column;
    }
    return true;
}

/// The inverse of a lower triangular block.
Block invert_lower(const Block& lower) {
    Block inverse;
    for (std::size_t i = 0; i < width; ++i) {
        Lanes row{};
        row[static_cast<std::int64_t>(i)] = 1;
        for (std::size_t k = 0; k < i; ++k)
            row -= lower[i][static_cast<std::int64_t>(k)] * inverse[k];
        inverse[i] = row / lower[i][static_cast<std::int64_t>(i)];
    }
    return inverse;
}

/// tile's block on the diagonal ← blockᵀ.
void store_transposed(const Block& block, std::int64_t index, Tile& tile) {
    for (std::int64_t i = 0; i < width; ++i)
        for (std::int64_t j = 0; j < width; ++j)
            tile.values[index * width + i][index * width + j] = block[static_cast<std::size_t>(j)][i];
}

/// inverse: on entry the inverses of the blocks on u's diagonal. Rows of blocks from the last to the first:
/// U⁻¹[i, j] = −U⁻¹[i, i]·Σ_{i < k ≤ j} U[i, k]·U⁻¹[k, j].
void invert_tile(Tile& u, Tile& inverse) {
    for (std::int64_t i = blocks - 1; i >= 0; --i) {
        for (std::int64_t j = i + 1; j < blocks; ++j) {
            Block sums{};
            const std::int64_t begin = (i + 1) * width;
            for (std::int64_t r = 0; r < width; r += rows_at_once) {
                multiply<false>(&u.values[i * width + r][begin], side, &inverse.at(begin, j), lanes_per_row,
                                (j - i) * width, &sums[static_cast<std::size_t>(r)], 1);
            }
            for (std::int64_t r = 0; r < width; r += rows_at_once) {
                Lanes* out = &inverse.at(i * width + r, j);
                for (std::int64_t k = 0; k < rows_at_once; ++k)
                    out[k * lanes_per_row] = Lanes{};
                multiply<true>(&inverse.values[i * width + r][i * width], side, sums.data(), 1, width, out,
                               lanes_per_row);
            }
        }
    }
}

}  // namespace

bool factor(MatrixView<float> matrix, const float* original_diagonal, MatrixView<float> inverse) {
    const std::int64_t pad = side - matrix.rows;
    Tile tile, inverted{};
    load_symmetric(matrix, tile);
    float smallest_pivots[side] = {};
    for (std::int64_t i = pad; i < side; ++i)
        smallest_pivots[i] = std::numeric_limits<float>::epsilon() * original_diagonal[i - pad];

    for (std::int64_t k = blocks - 1; k >= 0; --k) {
        Block diagonal, transposed;
        for (std::int64_t i = 0; i < width; ++i)
            diagonal[static_cast<std::size_t>(i)] = tile.at(k * width + i, k);
        if (!factor_block(diagonal, smallest_pivots + k * width, transposed)) return false;
        store_transposed(transposed, k, tile);
        const Block lower_inverse = invert_lower(transposed);
        store_transposed(lower_inverse, k, inverted);

        // The blocks above: A[i, k] ← A[i, k]·U[k, k]⁻ᵀ, and what they take from the blocks to their left.
        alignas(64) float panel_transposed[width][side];
        for (std::int64_t r = 0; r < k * width; r += rows_at_once) {
            std::array<Lanes, rows_at_once> sums{};
            multiply<false>(&tile.values[r][k * width], side, lower_inverse.data(), 1, width, sums.data(), 1);
            for (std::int64_t i = 0; i < rows_at_once; ++i) {
                tile.at(r + i, k) = sums[static_cast<std::size_t>(i)];
                for (std::int64_t j = 0; j < width; ++j)
                    panel_transposed[j][r + i] = tile.values[r + i][k * width + j];
            }
        }
        for (std::int64_t r = 0; r < k * width; r += rows_at_once)
            for (std::int64_t j = r / width; j < k; ++j)
                multiply<true>(&tile.values[r][k * width], side,
                               reinterpret_cast<const Lanes*>(&panel_transposed[0][j * width]), lanes_per_row, width,
                               &tile.at(r, j), lanes_per_row);
    }
    store_upper(tile, matrix);
    invert_tile(tile, inverted);
    for (std::int64_t i = 0; i < matrix.rows; ++i)
        for (std::int64_t j = 0; j < matrix.rows; ++j)
            inverse(i, j) = j < i ? 0.0F : inverted.values[i + pad][j + pad];
    return true;
}

void invert(MatrixView<float> matrix) {
    Tile tile, inverted{};
    load_upper(matrix, tile);
    for (std::int64_t k = 0; k < blocks; ++k) {
        Block transposed;
        for (std::int64_t i = 0; i < width; ++i)
            for (std::int64_t j = 0; j < width; ++j)
                transposed[static_cast<std::size_t>(i)][j] = tile.values[k * width + j][k * width + i];
        store_transposed(invert_lower(transposed), k, inverted);
    }
    invert_tile(tile, inverted);
    store_upper(inverted, matrix);
}

}  // namespace fairgptq::cholesky_leaf
