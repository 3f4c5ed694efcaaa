// XᵀX.
#pragma once

#include "reference/reference.hpp"

namespace fairgptq::reference {

inline Matrix gram(Input x) {
    Matrix result(x.cols, x.cols);
    for (std::int64_t token = 0; token < x.rows; ++token)
        for (std::int64_t i = 0; i < x.cols; ++i)
            for (std::int64_t j = 0; j < x.cols; ++j)
                result(i, j) += static_cast<double>(x(token, i)) * static_cast<double>(x(token, j));
    return result;
}

}  // namespace fairgptq::reference
