#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

struct AttentionShape {
    std::int64_t heads = 0;
    std::int64_t key_value_heads = 0;  // divides heads: grouped-query attention
    std::int64_t head_dim = 0;
    float scale = 1;                // multiplies q·k, usually 1/sqrt(head_dim)
    std::int64_t window = 0;        // token t sees t − window + 1 … t; 0: every token before it
    float cap = 0;                  // scores s become cap · tanh(s / cap); 0: they stay
    std::int64_t value_dim = 0;     // elements of a head's values, at most head_dim; 0: head_dim
    std::int64_t values_apart = 0;  // columns from one head's values to the next one's; 0: they have no gaps

    std::int64_t value_size() const { return value_dim > 0 ? value_dim : head_dim; }
    std::int64_t value_step() const { return values_apart > 0 ? values_apart : value_size(); }
    /// Columns that the values of all heads reach over.
    std::int64_t value_cols() const { return (key_value_heads - 1) * value_step() + value_size(); }
};

/// Consecutive rows of a tensor.
struct RowRange {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int64_t size() const { return end - begin; }
    bool operator==(const RowRange&) const = default;
};

/// One sequence whose keys and values are computed already, in part or as a whole: positions 0 … are the rows of
/// `prefix`, then those of `own`. Its queries are its last positions.
struct CachedSequence {
    RowRange queries;      // rows of query and output; at most as many as `own` has
    RowRange prefix, own;  // rows of key and value
};

class AttentionOperations {
  public:
    virtual ~AttentionOperations() = default;

    /// Ragged causal attention: softmax(scale · q kᵀ) v within each sequence, scores capped where the shape has a cap,
    /// nothing padded.
    /// @param query   [tokens, heads · head_dim]
    /// @param key     [tokens, key_value_heads · head_dim]
    /// @param value   [tokens, value_cols()]: of each head value_size() elements, the next one's value_step() further
    /// @param offsets host; sequences' first tokens and the end, [sequences + 1]
    /// @param output  [tokens, heads · value_size()], written; softmax and sums in float32
    void attention(TensorView query, TensorView key, TensorView value, std::span<const std::int64_t> offsets,
                   const AttentionShape& shape, TensorView output);

    /// Causal attention over keys and values that several sequences may share (a prefix computed once), or that stay
    /// from one call to the next (a KV cache). Rows of `output` that are no sequence's queries stay as they are.
    /// @param query, output as attention's, [rows, …]; @param key, value as attention's, [key rows, …]
    /// @throws Failure if a range leaves its tensor
    virtual void cached_attention(TensorView query, TensorView key, TensorView value,
                                  std::span<const CachedSequence> sequences, const AttentionShape& shape,
                                  TensorView output) = 0;

  protected:
    /// @throws Failure unless cached_attention's arguments go together
    static void check_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                                std::span<const CachedSequence> sequences, const AttentionShape& shape,
                                const TensorView& output);
};

}  // namespace fairgptq
