// Sums both sides of a few hundred features at a time on the stack, so that each input row is read once and nothing is
// written but the difference.
#include "backend/pair_differences.hpp"

#include <algorithm>
#include <array>

#include "backend/cpu/backend.hpp"

namespace fairgptq {

namespace {

constexpr std::int64_t block_features = 256;
using Sums = std::array<float, block_features>;

void check_tokens(std::int32_t first, std::int32_t count, std::int64_t tokens) {
    if (first < 0 || count < 1 || first > tokens - count)
        throw Failure("pair_differences: tokens {} and on, {} in number, are not in a chunk of {} tokens", first, count,
                      tokens);
}

void mean_of_rows(MatrixView<const float> rows, Sums& mean) {
    std::copy_n(rows.row(0), rows.cols, mean.data());
    for (std::int64_t row = 1; row < rows.rows; ++row) {
        const float* values = rows.row(row);
#pragma omp simd
        for (std::int64_t col = 0; col < rows.cols; ++col)
            mean[col] += values[col];
    }
    const auto count = static_cast<float>(rows.rows);
#pragma omp simd
    for (std::int64_t col = 0; col < rows.cols; ++col)
        mean[col] /= count;
}

}  // namespace

void CpuBackend::pair_differences(TensorView inputs, std::span<const PairColumn> columns,
                                  MatrixView<float> differences) {
    const auto pairs = static_cast<std::int64_t>(columns.size());
    if (differences.rows != pairs || differences.cols != inputs.cols)
        throw Failure("pair_differences: {} columns of {} features do not fit [{}, {}]", pairs, inputs.cols,
                      differences.rows, differences.cols);
    for (const PairColumn& column : columns) {
        check_tokens(column.first0, column.count0, inputs.rows);
        check_tokens(column.first1, column.count1, inputs.rows);
    }
    const MatrixView<const float> x = inputs.float32();
#pragma omp parallel for schedule(static)
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        const PairColumn& column = columns[static_cast<std::size_t>(pair)];
        Sums mean0;
        Sums mean1;
        for (std::int64_t feature = 0; feature < x.cols; feature += block_features) {
            const auto features = std::min(block_features, x.cols - feature);
            mean_of_rows(x.block(column.first0, feature, column.count0, features), mean0);
            mean_of_rows(x.block(column.first1, feature, column.count1, features), mean1);
            float* result = differences.row(pair) + feature;
#pragma omp simd
            for (std::int64_t col = 0; col < features; ++col)
                result[col] = mean0[col] - mean1[col];
        }
    }
}

}  // namespace fairgptq
