// Row-major float32 BLAS calls of one thread each. Callers run several at once over tiles of fixed size (OpenMP), so
// results do not depend on how many threads there are.
#pragma once

#include <cblas.h>

#include "support/views.hpp"

namespace fairgptq::blas {

enum class Transpose : bool { no, yes };

/// c = alpha · op(a) · op(b) + beta · c
inline void gemm(Transpose transpose_a, Transpose transpose_b, float alpha, MatrixView<const float> a,
                 MatrixView<const float> b, float beta, MatrixView<float> c) {
    const auto inner = transpose_a == Transpose::yes ? a.rows : a.cols;
    if (c.rows == 0 || c.cols == 0) return;
    cblas_sgemm(CblasRowMajor, transpose_a == Transpose::yes ? CblasTrans : CblasNoTrans,
                transpose_b == Transpose::yes ? CblasTrans : CblasNoTrans, static_cast<blasint>(c.rows),
                static_cast<blasint>(c.cols), static_cast<blasint>(inner), alpha, a.data,
                static_cast<blasint>(a.stride), b.data, static_cast<blasint>(b.stride), beta, c.data,
                static_cast<blasint>(c.stride));
}

/// b = alpha · b · op(upper), upper triangular
inline void multiply_right_upper(float alpha, MatrixView<const float> upper, MatrixView<float> b,
                                 Transpose transpose = Transpose::no) {
    if (b.empty()) return;
    cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, transpose == Transpose::yes ? CblasTrans : CblasNoTrans,
                CblasNonUnit, static_cast<blasint>(b.rows), static_cast<blasint>(b.cols), alpha, upper.data,
                static_cast<blasint>(upper.stride), b.data, static_cast<blasint>(b.stride));
}

/// b = alpha · upper · b
inline void multiply_left_upper(float alpha, MatrixView<const float> upper, MatrixView<float> b) {
    if (b.empty()) return;
    cblas_strmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, static_cast<blasint>(b.rows),
                static_cast<blasint>(b.cols), alpha, upper.data, static_cast<blasint>(upper.stride), b.data,
                static_cast<blasint>(b.stride));
}

/// The upper triangle of c −= a · aᵀ
inline void subtract_gram_upper(MatrixView<const float> a, MatrixView<float> c) {
    if (c.empty()) return;
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasNoTrans, static_cast<blasint>(a.rows), static_cast<blasint>(a.cols), -1,
                a.data, static_cast<blasint>(a.stride), 1, c.data, static_cast<blasint>(c.stride));
}

}  // namespace fairgptq::blas
