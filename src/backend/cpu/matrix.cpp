// Products are made tile by tile of 64 rows from a view's first row, one single-threaded call each: a row's result does
// not depend on threads, nor on which rows follow its tile.
#include <algorithm>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/blas.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t row_tile = 64;
constexpr std::int64_t column_strip = 512;

std::int64_t tiles_of(std::int64_t rows) {
    return (rows + row_tile - 1) / row_tile;
}

template <class T>
void gather_row(const T* in, std::span<const std::int32_t> order, std::span<const std::uint8_t> dead, float* out) {
    for (std::size_t i = 0; i < order.size(); ++i) {
        const std::int32_t column = order[i];
        if (!dead.empty() && dead[column] != 0) {
            out[i] = 0;
        } else if constexpr (std::is_same_v<T, float>) {
            out[i] = in[column];
        } else {
            out[i] = to_float(in[column]);
        }
    }
}

}  // namespace

void CpuBackend::combine(MatrixView<const float> hessian, MatrixView<const float> covariance, float alpha,
                         float damping, std::span<const std::int32_t> order, MatrixView<float> out) {
#pragma omp parallel for schedule(dynamic, 16)
    for (std::int64_t i = 0; i < out.rows; ++i) {
        const std::int64_t from = order[i];
        const float* h = hessian.row(from);
        const float* c = covariance.empty() ? nullptr : covariance.row(from);
        float* row = out.row(i);
        if (c == nullptr || alpha == 0) {
            for (std::int64_t j = 0; j < out.cols; ++j)
                row[j] = h[order[j]];
        } else {
            for (std::int64_t j = 0; j < out.cols; ++j)
                row[j] = h[order[j]] + alpha * c[order[j]];
        }
        const bool dead = h[from] == 0 && (c == nullptr || c[from] == 0);
        row[i] = dead ? 1 : row[i] + damping;
    }
}

void CpuBackend::gather_columns(TensorView in, std::span<const std::int32_t> order, std::span<const std::uint8_t> dead,
                                MatrixView<float> out) {
#pragma omp parallel for schedule(dynamic, 16)
    for (std::int64_t row = 0; row < out.rows; ++row) {
        switch (in.type) {
            case DType::float32:
                gather_row(reinterpret_cast<const float*>(in.row(row)), order, dead, out.row(row));
                break;
            case DType::float16:
                gather_row(reinterpret_cast<const Float16*>(in.row(row)), order, dead, out.row(row));
                break;
            case DType::bfloat16:
                gather_row(reinterpret_cast<const BFloat16*>(in.row(row)), order, dead, out.row(row));
                break;
        }
    }
}

void CpuBackend::shift_target(MatrixView<const float> weights, MatrixView<const float> covariance, float alpha,
                              MatrixView<const float> inverse, std::span<const std::int32_t> order,
                              MatrixView<float> target) {
    const std::int64_t n = weights.cols;
#pragma omp parallel
    {
        std::vector<float> product(static_cast<std::size_t>(row_tile * n));
        std::vector<float> ordered(static_cast<std::size_t>(row_tile * n));
#pragma omp for schedule(dynamic)
        for (std::int64_t tile = 0; tile < tiles_of(weights.rows); ++tile) {
            const std::int64_t begin = tile * row_tile;
            const std::int64_t rows = std::min(row_tile, weights.rows - begin);
            const MatrixView<float> wc(product.data(), rows, n);
            const MatrixView<float> shift(ordered.data(), rows, n);
            blas::gemm(blas::Transpose::no, blas::Transpose::no, 1, weights.rows_from(begin, rows), covariance, 0, wc);
            for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t i = 0; i < n; ++i)
                    shift(r, i) = wc(r, order[i]);
            blas::multiply_right_upper(1, inverse, shift, blas::Transpose::yes);
            blas::multiply_right_upper(alpha, inverse, shift);
            for (std::int64_t r = 0; r < rows; ++r) {
                float* row = target.row(begin + r);
                for (std::int64_t i = 0; i < n; ++i)
                    row[i] -= shift(r, i);
            }
        }
    }
}

void CpuBackend::subtract(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out) {
#pragma omp parallel for schedule(dynamic, 16)
    for (std::int64_t r = 0; r < out.rows; ++r) {
        const float* left = a.row(r);
        const float* right = b.row(r);
        float* row = out.row(r);
        for (std::int64_t c = 0; c < out.cols; ++c)
            row[c] = left[c] - right[c];
    }
}

// By symmetry a M aᵀ = Σ over column strips J of (2·a_{before J}·M[before J, J] + a_J·M[J, J])·a_Jᵀ: half the products.
void CpuBackend::quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                 std::span<double> result) {
    const std::int64_t n = matrix.cols;
#pragma omp parallel
    {
        std::vector<float> scratch(static_cast<std::size_t>(row_tile * std::min(column_strip, n)));
#pragma omp for schedule(dynamic)
        for (std::int64_t tile = 0; tile < tiles_of(matrix.rows); ++tile) {
            const std::int64_t begin = tile * row_tile;
            const std::int64_t rows = std::min(row_tile, matrix.rows - begin);
            double sum = 0;
            for (std::int64_t col = 0; col < n; col += column_strip) {
                const std::int64_t cols = std::min(column_strip, n - col);
                const MatrixView<float> product(scratch.data(), rows, cols);
                blas::gemm(blas::Transpose::no, blas::Transpose::no, 1, matrix.block(begin, col, rows, cols),
                           symmetric.block(col, col, cols, cols), 0, product);
                if (col > 0)
                    blas::gemm(blas::Transpose::no, blas::Transpose::no, 2, matrix.block(begin, 0, rows, col),
                               symmetric.block(0, col, col, cols), 1, product);
                for (std::int64_t r = 0; r < rows; ++r) {
                    const float* left = product.row(r);
                    const float* right = matrix.row(begin + r) + col;
                    double row_sum = 0;
#pragma omp simd reduction(+ : row_sum)
                    for (std::int64_t c = 0; c < cols; ++c)
                        row_sum += static_cast<double>(left[c]) * static_cast<double>(right[c]);
                    sum += row_sum;
                }
            }
            result[tile] = sum;
        }
    }
}

void CpuBackend::column_errors(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) {
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t begin = 0; begin < a.cols; begin += column_strip) {
        const std::int64_t end = std::min(begin + column_strip, a.cols);
        for (std::int64_t r = 0; r < a.rows; ++r) {
            const float* left = a.row(r);
            const float* right = b.row(r);
            for (std::int64_t c = begin; c < end; ++c) {
                const double difference = static_cast<double>(left[c]) - static_cast<double>(right[c]);
                result[c] += difference * difference;
            }
        }
    }
}

void CpuBackend::diagonal(MatrixView<const float> matrix, std::span<float> result) {
    for (std::int64_t i = 0; i < matrix.rows; ++i)
        result[i] = matrix(i, i);
}

}  // namespace fairgptq
