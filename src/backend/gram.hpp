#pragma once

#include "support/views.hpp"

namespace fairgptq {

class GramOperations {
  public:
    virtual ~GramOperations() = default;

    /// Adds XᵀX of one chunk of stage inputs to a running sum.
    ///
    /// The chunk's product is formed in float32 (tensor cores may take bfloat16 inputs: their products are exact in
    /// float32), then added in float64. Sums of float32 numbers of like size are exact in float64, so the order of
    /// chunks, and with it the number of ranks, changes nothing.
    /// @param inputs  [tokens, features], on this backend's device
    /// @param scratch [features, features], overwritten
    /// @param sum     [features, features], lower triangle packed
    /// @throws Failure if the sizes disagree
    /// Source: GPTQ (arXiv 2210.17323) eq. 3, Fair-GPTQ (arXiv 2509.15206) for pair differences.
    virtual void accumulate_gram(TensorView inputs, MatrixView<float> scratch, PackedLower<double> sum) = 0;

    /// gram = factor · sum, rounded once to float32, both triangles filled. `gram` is [features, features].
    virtual void finish_gram(PackedLower<const double> sum, double factor, MatrixView<float> gram) = 0;
};

}  // namespace fairgptq
