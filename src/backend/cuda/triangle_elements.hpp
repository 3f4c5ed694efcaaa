// What the kernels of the factorization do with their elements.
#pragma once

#include "backend/cuda/portable.hpp"

namespace fairgptq::cuda {

constexpr int inverted_leaf = 64;

/// Element k of a square matrix, in reading order, changes places with the k-th from the end; k < reversed_pairs(n).
FAIRGPTQ_PORTABLE std::int64_t reversed_pairs(std::int64_t n) {
    return (n * n + 1) / 2;
}
FAIRGPTQ_PORTABLE void reverse_pair(Plain<float> square, std::int64_t k, bool clear_lower) {
    const std::int64_t n = square.rows;
    const std::int64_t row = k / n;
    const std::int64_t col = k % n;
    float* first = square.row(row) + col;
    float* last = square.row(n - 1 - row) + (n - 1 - col);
    const float value = *first;
    // The element at the centre changes places with itself.
    *first = clear_lower && col < row ? 0.0F : *last;
    if (first != last) *last = clear_lower && col > row ? 0.0F : value;
}

/// Column `col` of the inverse of an upper triangular matrix of at most 64 columns, solved from its diagonal up.
struct LeafMemory {
    float factor[inverted_leaf][inverted_leaf + 1];
    float inverse[inverted_leaf][inverted_leaf + 1];
};
FAIRGPTQ_PORTABLE void load_leaf_column(Plain<float> upper, std::int64_t begin, int col, LeafMemory& memory) {
    const auto size = static_cast<int>(smaller(inverted_leaf, upper.rows - begin));
    for (int row = 0; row < size; ++row)
        if (col < size) memory.factor[row][col] = upper.row(begin + row)[begin + col];
}
FAIRGPTQ_PORTABLE void invert_leaf_column(Plain<float> upper, std::int64_t begin, int col, LeafMemory& memory) {
    if (begin + col >= upper.rows) return;
    for (int row = col; row >= 0; --row) {
        float sum = row == col ? 1.0F : 0.0F;
        for (int k = row + 1; k <= col; ++k)
            sum = fused(-memory.factor[row][k], memory.inverse[k][col], sum);
        memory.inverse[row][col] = sum / memory.factor[row][row];
    }
    for (int row = 0; row <= col; ++row)
        upper.row(begin + row)[begin + col] = memory.inverse[row][col];
}

}  // namespace fairgptq::cuda
