#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "support/views.hpp"

namespace fairgptq {

/// One column of D: mean of the inputs of tokens [first0, first0 + count0) minus that of [first1, first1 + count1).
/// Aligned tokens have counts of 1; the `mean` alignment has whole sentences. Indices are rows of the chunk.
struct PairColumn {
    std::int32_t first0 = 0;
    std::int32_t count0 = 1;
    std::int32_t first1 = 0;
    std::int32_t count1 = 1;
};

/// Columns of a matrix that holds some of a chunk's rows: of each column those of its tokens that are there, and no
/// column that lacks all of one sentence.
/// @param rows of the chunk, ascending
inline std::vector<PairColumn> pair_columns_among(std::span<const PairColumn> columns,
                                                  std::span<const std::int32_t> rows) {
    std::vector<PairColumn> among;
    const auto place_of = [&](std::int32_t row) {
        return static_cast<std::int32_t>(std::ranges::lower_bound(rows, row) - rows.begin());
    };
    for (const PairColumn& column : columns) {
        const std::int32_t first0 = place_of(column.first0);
        const std::int32_t first1 = place_of(column.first1);
        const PairColumn found{first0, place_of(column.first0 + column.count0) - first0, first1,
                               place_of(column.first1 + column.count1) - first1};
        if (found.count0 > 0 && found.count1 > 0) among.push_back(found);
    }
    return among;
}

class PairDifferenceOperations {
  public:
    virtual ~PairDifferenceOperations() = default;

    /// differences[p] = mean(inputs of column p's stereotypical tokens) − mean(those of its anti-stereotypical tokens),
    /// in float32, before any covariance: they are differences of near-equal numbers.
    /// @param inputs      [tokens, features]
    /// @param columns     on the host; every index lies in the chunk
    /// @param differences [columns.size(), features], overwritten
    virtual void pair_differences(TensorView inputs, std::span<const PairColumn> columns,
                                  MatrixView<float> differences) = 0;
};

}  // namespace fairgptq
