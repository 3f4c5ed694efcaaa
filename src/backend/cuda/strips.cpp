#include "backend/cuda/strips.hpp"

#include <algorithm>
#include <vector>

namespace fairgptq::cuda {

void lower_gram(Products& products, TensorView inputs, MatrixView<float> out, StripSizes sizes) {
    for (std::int64_t begin = 0; begin < inputs.cols; begin += sizes.strip) {
        const std::int64_t cols = std::min(sizes.strip, inputs.cols - begin);
        const std::int64_t rows = inputs.cols - begin;
        products.multiply_any(Transpose::yes, Transpose::no, inputs.cols_from(begin, rows),
                              inputs.cols_from(begin, cols), 0, out.block(begin, begin, rows, cols));
    }
}

void multiply_upper_transposed(Products& products, MatrixView<const float> x, MatrixView<const float> upper,
                               MatrixView<float> out, StripSizes sizes) {
    const std::int64_t n = x.cols;
    for (std::int64_t col = 0; col < n; col += sizes.strip) {  // Σ_{k ≥ j} x_k upper_jk
        const std::int64_t cols = std::min(sizes.strip, n - col);
        products.fixed_order(Transpose::yes, 1, x.block(0, col, x.rows, n - col), upper.block(col, col, cols, n - col),
                             0, out.block(0, col, x.rows, cols));
    }
}

void add_multiply_upper(Products& products, MatrixView<const float> x, MatrixView<const float> upper,
                        MatrixView<float> out, StripSizes sizes) {
    const std::int64_t n = x.cols;
    for (std::int64_t col = 0; col < n; col += sizes.strip) {  // Σ_{k ≤ j} x_k upper_kj
        const std::int64_t cols = std::min(sizes.strip, n - col);
        products.fixed_order(Transpose::no, 1, x.block(0, 0, x.rows, col + cols), upper.block(0, col, col + cols, cols),
                             1, out.block(0, col, x.rows, cols));
    }
}

void half_symmetric_product(Products& products, MatrixView<const float> x, MatrixView<const float> symmetric,
                            MatrixView<float> out, StripSizes sizes) {
    const std::int64_t n = x.cols;
    for (std::int64_t col = 0; col < n; col += sizes.strip) {
        const std::int64_t cols = std::min(sizes.strip, n - col);
        const MatrixView<float> part = out.block(0, col, x.rows, cols);
        if (col > 0)
            products.fixed_order(Transpose::no, 2, x.block(0, 0, x.rows, col), symmetric.block(0, col, col, cols), 0,
                                 part);
        products.fixed_order(Transpose::no, 1, x.block(0, col, x.rows, cols), symmetric.block(col, col, cols, cols),
                             col > 0 ? 1.0F : 0.0F, part);
    }
}

namespace {

/// Two halves on the diagonal, and some columns of what is beside them.
struct PairStrip {
    MatrixView<float> first, side, last;
    std::int64_t col, cols;
    MatrixView<float> block() const { return side.block(0, col, side.rows, cols); }
};

/// side ← −first·side·last in these columns; columns before them stay as they were.
void invert_strip(Products& products, Scratch& scratch, const PairStrip& strip, std::int64_t step) {
    const auto& [first, side, last, col, cols] = strip;
    const std::int64_t half = first.rows;
    const MatrixView<float> product = scratch.matrix<float>(half, cols);
    products.multiply(Transpose::no, 1, side.block(0, 0, half, col + cols), last.block(0, col, col + cols, cols), 0,
                      product);
    for (std::int64_t row = 0; row < half; row += step) {
        const std::int64_t rows = std::min(step, half - row);
        products.multiply(Transpose::no, -1, first.block(row, row, rows, half - row),
                          product.rows_from(row, half - row), 0, side.block(row, col, rows, cols));
    }
}

}  // namespace

void invert_pairs(Products& products, Scratch& scratch, MatrixView<float> matrix, Peers& peers, StripSizes sizes) {
    const std::int64_t n = matrix.rows;
    for (std::int64_t half = sizes.leaf; half < n; half *= 2) {
        // Pairs of two whole halves, and perhaps one whose second half ends with the matrix.
        const std::int64_t batched = half <= sizes.largest_batched ? n / (2 * half) : 0;
        if (batched > 0) {
            const std::int64_t step = 2 * half * (matrix.stride + 1);
            const MatrixView<float> all = scratch.matrix<float>(batched * half, half);
            const MatrixView<float> product = all.rows_from(0, half);
            const MatrixView<float> side = matrix.block(0, half, half, half);
            products.multiply_batch(1, side, step, matrix.block(half, half, half, half), step, product, half * half,
                                    batched);
            products.multiply_batch(-1, matrix.block(0, 0, half, half), step, product, half * half, side, step,
                                    batched);
        }
        std::vector<PairStrip> strips;
        std::vector<std::int64_t> costs;
        for (std::int64_t begin = batched * 2 * half; begin + half < n; begin += 2 * half) {
            const std::int64_t second = std::min(half, n - begin - half);
            // From the last columns to the first: a strip needs the columns before it as they were.
            for (std::int64_t col = (second - 1) / sizes.strip * sizes.strip; col >= 0; col -= sizes.strip) {
                const std::int64_t cols = std::min(sizes.strip, second - col);
                strips.push_back({matrix.block(begin, begin, half, half),
                                  matrix.block(begin, begin + half, half, second),
                                  matrix.block(begin + half, begin + half, second, second), col, cols});
                costs.push_back(half * cols * (2 * (col + cols) + half));
            }
        }
        Shares shares(peers, half > sizes.largest_batched, costs);
        const auto strip_at = [&](std::int64_t i) { return strips[static_cast<std::size_t>(i)]; };
        for (std::int64_t i = 0; i < std::ssize(strips); ++i)
            if (shares.mine(i)) invert_strip(products, scratch, strip_at(i), sizes.strip);
        shares.exchange([&](std::int64_t i) { return strip_at(i).block(); });
    }
}

}  // namespace fairgptq::cuda
