#pragma once

#include <cstdint>
#include <span>

#include "backend/attention.hpp"
#include "support/views.hpp"

namespace fairgptq {

struct DeltaShape {
    std::int64_t key_heads = 0;
    std::int64_t value_heads = 0;  // a multiple of key_heads: neighbours share one head's queries and keys
    std::int64_t key_dim = 0;      // of a head, at most widest_key
    std::int64_t value_dim = 0;    // of a head

    static constexpr std::int64_t widest_key = 128;
    static constexpr float epsilon = 1e-6F;  // what is added to the squares of a query or key before it is divided
    std::int64_t key_cols() const { return key_heads * key_dim; }
    std::int64_t value_cols() const { return value_heads * value_dim; }
    /// Queries, keys and values of a token.
    std::int64_t mixed_cols() const { return 2 * key_cols() + value_cols(); }
    /// Of one sequence's state: [value_heads, key_dim, value_dim].
    std::int64_t state_elements() const { return value_heads * key_dim * value_dim; }
};

/// A sequence's rows: those of its prefix, whose outputs nobody asks for, then its own.
struct DeltaSequence {
    RowRange prefix, own;
};

class DeltaRuleOperations {
  public:
    virtual ~DeltaRuleOperations() = default;

    /// Linear attention by the gated delta rule (Gated Delta Networks, arXiv 2412.06464, equation 10). Each value head
    /// has a state S [key_dim, value_dim], 0 where a sequence begins, and token by token
    ///   S ← e^g S,   S ← S + k ⊗ β(v − Sᵀk),   output = Sᵀq / sqrt(key_dim),
    /// where q and k are brought to length 1, g = −exp(decay) · softplus(a + step) and β = sigmoid(b). All of it in
    /// float32, outputs rounded once.
    /// @param mixed  [rows, mixed_cols()]: queries of all key heads, keys of all, values of all value heads
    /// @param gates  float32, [rows, 2 · value_heads]: b of all value heads, then a
    /// @param decay, step on the device, [value_heads]
    /// @param states on the device, [sequences, state_elements()], where sequences begin, and left as they end; or null
    /// @param output [rows, value_cols()]; sequences' own rows are written, the others stay as they are; must not
    /// overlap mixed
    /// @throws Failure if sizes do not go together, or a range leaves its tensor
    virtual void delta_rule(TensorView mixed, MatrixView<const float> gates, const float* decay, const float* step,
                            std::span<const DeltaSequence> sequences, const DeltaShape& shape, float* states,
                            TensorView output) = 0;

  protected:
    static void check_delta_rule(const TensorView& mixed, const MatrixView<const float>& gates,
                                 std::span<const DeltaSequence> sequences, const DeltaShape& shape,
                                 const TensorView& output) {
        if (shape.key_heads < 1 || shape.value_heads < 1 || shape.value_heads % shape.key_heads != 0 ||
            shape.key_dim < 1 || shape.key_dim > DeltaShape::widest_key || shape.value_dim < 1)
            throw Failure("delta_rule: {} heads of keys of {} elements and {} of values of {} do not go together",
                          shape.key_heads, shape.key_dim, shape.value_heads, shape.value_dim);
        if (mixed.cols != shape.mixed_cols() || gates.rows != mixed.rows || gates.cols != 2 * shape.value_heads ||
            output.rows != mixed.rows || output.cols != shape.value_cols())
            throw Failure("delta_rule: [{}, {}], gates of [{}, {}] and [{}, {}] do not go together", mixed.rows,
                          mixed.cols, gates.rows, gates.cols, output.rows, output.cols);
        for (const DeltaSequence& sequence : sequences)
            for (const RowRange& range : {sequence.prefix, sequence.own})
                if (range.begin < 0 || range.begin > range.end || range.end > mixed.rows)
                    throw Failure("delta_rule: a sequence's rows leave the {} that there are", mixed.rows);
    }
};

}  // namespace fairgptq
