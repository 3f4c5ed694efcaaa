#include "reference/products.hpp"

#include <stdexcept>

namespace fairgptq::reference {

Matrix product(const Matrix& a, const Matrix& b) {
    if (a.cols != b.rows) throw std::logic_error("a product of matrices that do not fit each other");
    Matrix result(a.rows, b.cols);
    for (std::int64_t i = 0; i < a.rows; ++i)
        for (std::int64_t k = 0; k < a.cols; ++k)
            for (std::int64_t j = 0; j < b.cols; ++j)
                result(i, j) += a(i, k) * b(k, j);
    return result;
}

Matrix gram(Input x) {
    const Matrix values = copy(x);
    return product(transposed(values), values);
}

double quadratic_form(const Matrix& a, const Matrix& m, std::int64_t first, std::int64_t rows) {
    if (m.rows != a.cols || m.cols != a.cols || first < 0 || first + rows > a.rows)
        throw std::logic_error("a quadratic form of matrices that do not fit each other");
    double sum = 0;
    for (std::int64_t r = first; r < first + rows; ++r)
        for (std::int64_t i = 0; i < a.cols; ++i)
            for (std::int64_t j = 0; j < a.cols; ++j)
                sum += a(r, i) * m(i, j) * a(r, j);
    return sum;
}

}  // namespace fairgptq::reference
