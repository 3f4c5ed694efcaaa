// The large products work on 64 rows at a time in lanes (lane_matrix.hpp): a row's result does not depend on threads,
// nor on the rows beside it.
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/lane_matrix.hpp"
#include "backend/cpu/scratch.hpp"

namespace fairgptq {
namespace {

using lanes::LaneMatrix;

constexpr std::int64_t column_strip = 128;
using cpu::slab_rows;

template <class Function>
void for_each_tile(const LaneMatrix& matrix, const Function& function) {
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t tile = 0; tile < matrix.tiles(); ++tile)
        function(tile);
}

float as_float(float value) {
    return value;
}
template <class Half>
float as_float(Half value) {
    return to_float(value);
}

/// @param in_order out[i] = in[i], which needs no indices
template <class T>
void gather_row(const T* in, std::span<const std::int32_t> order, bool in_order, float* out) {
    const auto n = static_cast<std::int64_t>(order.size());
    if (in_order) {
        for (std::int64_t i = 0; i < n; ++i)
            out[i] = as_float(in[i]);
    } else {
        for (std::int64_t i = 0; i < n; ++i)
            out[i] = as_float(in[order[i]]);
    }
}

/// −Σ values ∘ products of a tile, lane by lane in float64.
double negative_inner_product(const float* values, const float* products, std::int64_t cols) {
    double sums[lanes::count] = {};
    for (std::int64_t i = 0; i < cols; ++i, values += lanes::count, products += lanes::count)
#pragma omp simd
        for (std::int64_t lane = 0; lane < lanes::count; ++lane)
            sums[lane] -= static_cast<double>(values[lane]) * static_cast<double>(products[lane]);
    return std::accumulate(sums, sums + lanes::count, 0.0);
}

void require(bool holds, const char* operation) {
    if (!holds) throw Failure("{}: the sizes of its matrices disagree", operation);
}

}  // namespace

void CpuBackend::combine(MatrixView<const float> hessian, MatrixView<const float> covariance, float alpha,
                         float damping, std::span<const std::int32_t> order, MatrixView<float> out) {
    require(hessian.rows == out.rows && hessian.cols == out.cols && out.rows == out.cols &&
                std::ssize(order) == out.rows &&
                (covariance.empty() || (covariance.rows == out.rows && covariance.cols == out.cols)),
            "combine");
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
    const auto n = static_cast<std::int64_t>(order.size());
    require(in.rows == out.rows && in.cols == n && out.cols == n && (dead.empty() || std::ssize(dead) == n),
            "gather_columns");
    bool in_order = true;
    std::vector<std::int64_t> zeros;
    for (std::int64_t i = 0; i < n; ++i) {
        in_order = in_order && order[i] == i;
        if (!dead.empty() && dead[order[i]] != 0) zeros.push_back(i);
    }
#pragma omp parallel for schedule(dynamic, 16)
    for (std::int64_t r = 0; r < out.rows; ++r) {
        const std::byte* row = in.row(r);
        switch (in.type) {
            case DType::float32:
                gather_row(reinterpret_cast<const float*>(row), order, in_order, out.row(r));
                break;
            case DType::float16:
                gather_row(reinterpret_cast<const Float16*>(row), order, in_order, out.row(r));
                break;
            case DType::bfloat16:
                gather_row(reinterpret_cast<const BFloat16*>(row), order, in_order, out.row(r));
                break;
        }
        for (const std::int64_t i : zeros)
            out(r, i) = 0;
    }
}

void CpuBackend::gather_codes(MatrixView<const std::uint8_t> in, std::span<const std::int32_t> order,
                              MatrixView<std::uint8_t> out) {
    const auto n = std::ssize(order);
    require(in.rows == out.rows && in.cols == n && out.cols == n, "gather_codes");
#pragma omp parallel for schedule(static)
    for (std::int64_t r = 0; r < out.rows; ++r)
        for (std::int64_t i = 0; i < n; ++i)
            out(r, i) = in(r, order[i]);
}

void CpuBackend::shift_target(MatrixView<const float> weights, MatrixView<const float> covariance, float alpha,
                              MatrixView<const float> inverse, std::span<const std::int32_t> order,
                              MatrixView<float> target, std::span<double> bias) {
    require(covariance.rows == weights.cols && covariance.cols == weights.cols && inverse.rows == weights.cols &&
                inverse.cols == weights.cols && std::ssize(order) == weights.cols && target.rows == weights.rows &&
                target.cols == weights.cols && std::ssize(bias) == (weights.rows + lanes::count - 1) / lanes::count,
            "shift_target");
    const std::int64_t n = weights.cols;
    for (std::int64_t begin = 0; begin < weights.rows; begin += slab_rows) {
        const std::int64_t rows = std::min(slab_rows, weights.rows - begin);
        const MatrixView<const float> slab_weights = weights.rows_from(begin, rows);
        const MatrixView<float> slab_target = target.rows_from(begin, rows);
        LaneMatrix first(rows, n);
        LaneMatrix second(rows, n);
        for_each_tile(
            first, [&](std::int64_t tile) { lanes::load(first.rows_of(slab_weights, tile), first.column(tile, 0)); });
        // −WC, then WCRᵀ, then −WCRᵀR.
        lanes::negative_product(first, covariance, lanes::Form::square, second);
        for_each_tile(first, [&](std::int64_t tile) {
            bias[begin / lanes::count + tile] =
                negative_inner_product(first.column(tile, 0), second.column(tile, 0), n);
            for (std::int64_t i = 0; i < n; ++i)
                std::copy_n(second.column(tile, order[i]), lanes::count, first.column(tile, i));
        });
        lanes::negative_product(first, inverse, lanes::Form::upper_transposed, second);
        lanes::negative_product(second, inverse, lanes::Form::upper, first);
        for_each_tile(first, [&](std::int64_t tile) {
            const MatrixView<float> tile_target = first.rows_of(slab_target, tile);
            std::vector<float> shift(static_cast<std::size_t>(tile_target.rows * n));
            const MatrixView<float> rows_of_shift(shift.data(), tile_target.rows, n);
            lanes::store(first.column(tile, 0), rows_of_shift);
            for (std::int64_t r = 0; r < tile_target.rows; ++r)
                for (std::int64_t i = 0; i < n; ++i)
                    tile_target(r, i) += alpha * rows_of_shift(r, i);
        });
    }
}

void CpuBackend::copy(MatrixView<const float> in, MatrixView<float> out) {
    require(in.rows == out.rows && in.cols == out.cols, "copy");
#pragma omp parallel for schedule(static)
    for (std::int64_t r = 0; r < out.rows; ++r)
        std::copy_n(in.row(r), out.cols, out.row(r));
}

void CpuBackend::subtract(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out) {
    require(a.rows == out.rows && a.cols == out.cols && b.rows == out.rows && b.cols == out.cols, "subtract");
#pragma omp parallel for schedule(dynamic, 16)
    for (std::int64_t r = 0; r < out.rows; ++r) {
        const float* left = a.row(r);
        const float* right = b.row(r);
        float* row = out.row(r);
        for (std::int64_t c = 0; c < out.cols; ++c)
            row[c] = left[c] - right[c];
    }
}

// By symmetry a·M·aᵀ = Σ_j (Σ_{k<j} 2·a_k·M[k, j] + a_j·M[j, j])·a_j: half the products.
void CpuBackend::quadratic_forms(MatrixView<const float> matrix, MatrixView<const float> symmetric,
                                 std::span<double> result) {
    require(symmetric.rows == matrix.cols && symmetric.cols == matrix.cols &&
                std::ssize(result) == (matrix.rows + lanes::count - 1) / lanes::count,
            "quadratic_forms");
    const std::int64_t n = matrix.cols;
    for (std::int64_t begin = 0; begin < matrix.rows; begin += slab_rows) {
        const std::int64_t rows = std::min(slab_rows, matrix.rows - begin);
        LaneMatrix values(rows, n);
        LaneMatrix products(rows, n);
        for_each_tile(values, [&](std::int64_t tile) {
            lanes::load(values.rows_of(matrix.rows_from(begin, rows), tile), values.column(tile, 0));
        });
        lanes::negative_product(values, symmetric, lanes::Form::doubled_triangle, products);
        for_each_tile(values, [&](std::int64_t tile) {
            result[begin / lanes::count + tile] =
                negative_inner_product(values.column(tile, 0), products.column(tile, 0), n);
        });
    }
}

namespace {

/// Σ (a − b)² over a tile's rows of each of `count` columns, row after row. @param b may be empty: 0
void add_up_tile(MatrixView<const float> a, MatrixView<const float> b, std::int64_t tile, std::int64_t first_col,
                 std::int64_t count, double* sums) {
    static constexpr std::array<float, column_strip> zeros{};
    std::fill_n(sums, count, 0.0);
    for (std::int64_t r = tile * lanes::count; r < std::min((tile + 1) * lanes::count, a.rows); ++r) {
        const float* left = a.row(r) + first_col;
        const float* right = b.empty() ? zeros.data() : b.row(r) + first_col;
        for (std::int64_t c = 0; c < count; ++c) {
            const double difference = static_cast<double>(left[c]) - static_cast<double>(right[c]);
            sums[c] += difference * difference;
        }
    }
}

std::int64_t tiles_of(std::int64_t rows) {
    return (rows + lanes::count - 1) / lanes::count;
}

bool alike(MatrixView<const float> a, MatrixView<const float> b) {
    return a.rows == b.rows && a.cols == b.cols;
}

}  // namespace

void CpuBackend::tile_squares(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) {
    require((b.empty() || alike(a, b)) && std::ssize(result) == tiles_of(a.rows), "tile_squares");
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t tile = 0; tile < std::ssize(result); ++tile) {
        double sum = 0;
        std::array<double, column_strip> sums;
        for (std::int64_t begin = 0; begin < a.cols; begin += column_strip) {
            const std::int64_t count = std::min(column_strip, a.cols - begin);
            add_up_tile(a, b, tile, begin, count, sums.data());
            sum = std::accumulate(sums.begin(), sums.begin() + count, sum);
        }
        result[static_cast<std::size_t>(tile)] = sum;
    }
}

void CpuBackend::column_errors(MatrixView<const float> a, MatrixView<const float> b, std::span<double> result) {
    require(alike(a, b) && std::ssize(result) == a.cols, "column_errors");
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t begin = 0; begin < a.cols; begin += column_strip) {
        const std::int64_t count = std::min(column_strip, a.cols - begin);
        double* all = result.data() + begin;
        std::fill_n(all, count, 0.0);
        std::array<double, column_strip> sums;
        for (std::int64_t tile = 0; tile < tiles_of(a.rows); ++tile) {
            add_up_tile(a, b, tile, begin, count, sums.data());
            for (std::int64_t c = 0; c < count; ++c)
                all[c] += static_cast<float>(sums[static_cast<std::size_t>(c)]);
        }
    }
}

void CpuBackend::diagonal(MatrixView<const float> matrix, std::span<float> result) {
    require(matrix.rows == matrix.cols && std::ssize(result) == matrix.rows, "diagonal");
    for (std::int64_t i = 0; i < matrix.rows; ++i)
        result[i] = matrix(i, i);
}

}  // namespace fairgptq
