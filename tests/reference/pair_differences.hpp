// Differences of means of rows.
#pragma once

#include <span>

#include "backend/pair_differences.hpp"
#include "reference/reference.hpp"

namespace fairgptq::reference {

inline double mean(Input x, std::int64_t first, std::int64_t count, std::int64_t feature) {
    double sum = 0;
    for (std::int64_t row = first; row < first + count; ++row)
        sum += static_cast<double>(x(row, feature));
    return sum / static_cast<double>(count);
}

inline Matrix pair_differences(Input x, std::span<const PairColumn> columns) {
    Matrix result(static_cast<std::int64_t>(columns.size()), x.cols);
    for (std::int64_t pair = 0; pair < result.rows; ++pair)
        for (std::int64_t feature = 0; feature < x.cols; ++feature) {
            const PairColumn& column = columns[static_cast<std::size_t>(pair)];
            result(pair, feature) =
                mean(x, column.first0, column.count0, feature) - mean(x, column.first1, column.count1, feature);
        }
    return result;
}

}  // namespace fairgptq::reference
