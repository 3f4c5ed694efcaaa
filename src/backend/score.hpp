#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

class ScoreOperations {
  public:
    virtual ~ScoreOperations() = default;

    /// log_probabilities[t] = logits[t, targets[t]] − log Σ exp(logits[t, :]), natural logarithm; sums in float32 or
    /// better.
    /// @param logits            [tokens, vocabulary] on the device
    /// @param targets           host, [tokens], each in [0, vocabulary)
    /// @param log_probabilities host, [tokens], written
    /// @param best              host, [tokens], written: the entry of the largest logit, the first of equal ones; may
    ///                          be empty, if it is not wanted
    virtual void token_log_probabilities(TensorView logits, std::span<const std::int32_t> targets,
                                         std::span<float> log_probabilities, std::span<std::int32_t> best) = 0;
};

}  // namespace fairgptq
