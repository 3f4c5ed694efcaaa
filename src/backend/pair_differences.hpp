#pragma once

#include <cstdint>
#include <span>

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
