#include "backend/cuda/strips.hpp"

#include <algorithm>

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

void invert_pairs(Products& products, Scratch& scratch, MatrixView<float> matrix, StripSizes sizes) {
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
        for (std::int64_t begin = batched * 2 * half; begin + half < n; begin += 2 * half) {
            const std::int64_t second = std::min(half, n - begin - half);
            const MatrixView<float> first = matrix.block(begin, begin, half, half);
            const MatrixView<float> side = matrix.block(begin, begin + half, half, second);
            const MatrixView<float> last = matrix.block(begin + half, begin + half, second, second);
            // From the last columns to the first: a strip needs the columns before it as they were.
            for (std::int64_t col = (second - 1) / sizes.strip * sizes.strip; col >= 0; col -= sizes.strip) {
                const std::int64_t cols = std::min(sizes.strip, second - col);
                const MatrixView<float> product = scratch.matrix<float>(half, cols);
                products.multiply(Transpose::no, 1, side.block(0, 0, half, col + cols),
                                  last.block(0, col, col + cols, cols), 0, product);
                for (std::int64_t row = 0; row < half; row += sizes.strip) {
                    const std::int64_t rows = std::min(sizes.strip, half - row);
                    products.multiply(Transpose::no, -1, first.block(row, row, rows, half - row),
                                      product.rows_from(row, half - row), 0, side.block(row, col, rows, cols));
                }
            }
        }
    }
}

}  // namespace fairgptq::cuda
