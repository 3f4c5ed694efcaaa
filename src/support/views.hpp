// Non-owning views of matrices: what crosses between folders instead of pointers and loose sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "support/dtype.hpp"
#include "support/error.hpp"
#include "support/half.hpp"

namespace fairgptq {

/// Row-major matrix of a known element type; consecutive rows are `stride` elements apart.
template <class T>
struct MatrixView {
    T* data = nullptr;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;

    MatrixView() = default;
    MatrixView(T* pointer, std::int64_t row_count, std::int64_t col_count)
        : MatrixView(pointer, row_count, col_count, col_count) {}
    MatrixView(T* pointer, std::int64_t row_count, std::int64_t col_count, std::int64_t row_stride)
        : data(pointer), rows(row_count), cols(col_count), stride(row_stride) {}

    /// A view of constants from a view of variables.
    template <class U>
    requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>)
        MatrixView(MatrixView<U> other)  // NOLINT(google-explicit-constructor)
        : MatrixView(other.data, other.rows, other.cols, other.stride) {}

    T* row(std::int64_t index) const { return data + index * stride; }
    T& operator()(std::int64_t row_index, std::int64_t col_index) const { return data[row_index * stride + col_index]; }
    MatrixView rows_from(std::int64_t first, std::int64_t count) const { return {row(first), count, cols, stride}; }
    MatrixView block(std::int64_t row0, std::int64_t col0, std::int64_t row_count, std::int64_t col_count) const {
        return {data + row0 * stride + col0, row_count, col_count, stride};
    }
    bool empty() const { return rows == 0 || cols == 0; }
};

/// The lower triangle of a symmetric matrix, row after row: element (i, j ≤ i) at i·(i+1)/2 + j.
/// Sums over chunks are kept this way: half the memory, half the traffic of an all-reduce.
template <class T>
struct PackedLower {
    T* data = nullptr;
    std::int64_t size = 0;  // rows and columns of the matrix

    static std::int64_t elements(std::int64_t n) { return n * (n + 1) / 2; }
    T* row(std::int64_t index) const { return data + index * (index + 1) / 2; }
};

/// Row-major matrix on a backend's device whose element type is known at run time only: float32 on the CPU, bfloat16 or
/// float16 where a GPU computes with it. A view does not promise constness; each operation says what it writes.
struct TensorView {
    void* data = nullptr;
    DType type = DType::float32;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;

    TensorView() = default;
    TensorView(void* pointer, DType element_type, std::int64_t row_count, std::int64_t col_count)
        : data(pointer), type(element_type), rows(row_count), cols(col_count), stride(col_count) {}
    TensorView(MatrixView<float> matrix)  // NOLINT(google-explicit-constructor)
        : data(matrix.data), rows(matrix.rows), cols(matrix.cols), stride(matrix.stride) {}

    std::byte* row(std::int64_t index) const {
        return static_cast<std::byte*>(data) + static_cast<std::size_t>(index * stride) * size_of(type);
    }
    TensorView rows_from(std::int64_t first, std::int64_t count) const {
        TensorView part = *this;
        part.data = row(first);
        part.rows = count;
        return part;
    }
    /// The first `count` columns (or `count` columns from `first`), same rows.
    TensorView cols_from(std::int64_t first, std::int64_t count) const {
        TensorView part = *this;
        part.data = static_cast<std::byte*>(data) + static_cast<std::size_t>(first) * size_of(type);
        part.cols = count;
        return part;
    }
    MatrixView<float> float32() const {
        if (type != DType::float32) throw Failure("a float32 tensor was expected here");
        return {static_cast<float*>(data), rows, cols, stride};
    }
    bool empty() const { return rows == 0 || cols == 0; }
};

}  // namespace fairgptq
