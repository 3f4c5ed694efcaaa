#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

struct AttentionShape {
    std::int64_t heads = 0;
    std::int64_t key_value_heads = 0;  // divides heads: grouped-query attention
    std::int64_t head_dim = 0;
    float scale = 1;          // multiplies q·k, usually 1/sqrt(head_dim)
    std::int64_t window = 0;  // token t sees t − window + 1 … t; 0: every token before it
};

class AttentionOperations {
  public:
    virtual ~AttentionOperations() = default;

    /// Ragged causal attention: softmax(scale · q kᵀ) v within each sequence, nothing padded.
    /// @param query      [tokens, heads · head_dim]
    /// @param key, value [tokens, key_value_heads · head_dim]
    /// @param offsets    host; sequences' first tokens and the end, [sequences + 1]
    /// @param output     [tokens, heads · head_dim], written; softmax and sums in float32
    virtual void attention(TensorView query, TensorView key, TensorView value, std::span<const std::int64_t> offsets,
                           const AttentionShape& shape, TensorView output) = 0;
};

}  // namespace fairgptq
