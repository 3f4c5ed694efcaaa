// Only the lower triangle is computed: half of a full product. Each tile is added to the float64 sum right after its
// product, while it is in cache.
#include "backend/gram.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/blas.hpp"

namespace fairgptq {

namespace {

constexpr std::int64_t mirror_tile = 64;

/// Larger tiles pack less, smaller ones share out better; tiles of one size leave no narrow rest. Depends on the matrix
/// alone, never on the threads.
std::int64_t product_tile(std::int64_t features) {
    constexpr std::int64_t vector = 16;
    const std::int64_t largest = features < 2048 ? 384 : 768;
    const std::int64_t count = (features + largest - 1) / largest;
    return ((features + count - 1) / count + vector - 1) / vector * vector;
}

struct Tile {
    std::int64_t row = 0;
    std::int64_t col = 0;
};

/// First corners of the tiles of a lower triangle; the cheaper ones on the diagonal come last, to even out the threads.
std::vector<Tile> lower_tiles(std::int64_t size, std::int64_t tile) {
    std::vector<Tile> tiles;
    for (std::int64_t row = 0; row < size; row += tile)
        for (std::int64_t col = 0; col < row; col += tile)
            tiles.push_back({row, col});
    for (std::int64_t row = 0; row < size; row += tile)
        tiles.push_back({row, row});
    return tiles;
}

void syrk_lower_transposed(MatrixView<const float> a, MatrixView<float> c) {
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, static_cast<blasint>(a.cols), static_cast<blasint>(a.rows), 1.0F,
                a.data, static_cast<blasint>(a.stride), 0.0F, c.data, static_cast<blasint>(c.stride));
}

}  // namespace

void CpuBackend::accumulate_gram(TensorView inputs, MatrixView<float> scratch, PackedLower<double> sum) {
    const std::int64_t size = inputs.cols;
    if (scratch.rows != size || scratch.cols != size || sum.size != size)
        throw Failure("accumulate_gram: inputs have {} features, but scratch is [{}, {}] and the sum has {}", size,
                      scratch.rows, scratch.cols, sum.size);
    const MatrixView<const float> x = inputs.float32();
    if (x.empty()) return;
    const std::int64_t tile = product_tile(size);
    const auto tiles = lower_tiles(size, tile);
#pragma omp parallel for schedule(dynamic)
    for (const auto& [row, col] : tiles) {
        const auto rows = std::min(tile, size - row);
        const auto cols = std::min(tile, size - col);
        const auto product = scratch.block(row, col, rows, cols);
        const auto left = x.block(0, row, x.rows, rows);
        if (row == col)
            syrk_lower_transposed(left, product);
        else
            blas::gemm(blas::Transpose::yes, blas::Transpose::no, 1.0F, left, x.block(0, col, x.rows, cols), 0.0F,
                       product);
        for (std::int64_t i = 0; i < rows; ++i) {
            const auto width = row == col ? i + 1 : cols;
            const float* from = product.row(i);
            double* to = sum.row(row + i) + col;
#pragma omp simd
            for (std::int64_t j = 0; j < width; ++j)
                to[j] += static_cast<double>(from[j]);
        }
    }
}

void CpuBackend::finish_gram(PackedLower<const double> sum, double factor, MatrixView<float> gram) {
    const std::int64_t size = sum.size;
    if (gram.rows != size || gram.cols != size)
        throw Failure("finish_gram: a sum of {} features does not fit [{}, {}]", size, gram.rows, gram.cols);
    const auto tiles = lower_tiles(size, mirror_tile);
#pragma omp parallel for schedule(dynamic)
    for (const auto& [row, col] : tiles) {
        const auto row_end = std::min(row + mirror_tile, size);
        for (std::int64_t i = row; i < row_end; ++i) {
            const auto col_end = std::min(col + mirror_tile, i + 1);
            const double* from = sum.row(i);
            for (std::int64_t j = col; j < col_end; ++j) {
                const auto value = static_cast<float>(factor * from[j]);
                gram(i, j) = value;
                gram(j, i) = value;
            }
        }
    }
}

}  // namespace fairgptq
