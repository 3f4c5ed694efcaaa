#pragma once

#include <cstdint>
#include <span>

#include "support/views.hpp"

namespace fairgptq {

/// Which elements of a head's rotated part turn together: i and i + rotary_dim/2, as in most Hugging Face models, or
/// 2i and 2i + 1.
enum class RotaryPairs : std::uint8_t { halves, neighbours };

class RotaryOperations {
  public:
    virtual ~RotaryOperations() = default;

    /// Rotates the first `rotary_dim` elements of each head of `heads` in place by its token's position.
    /// @param heads       [tokens, head_count · head_dim], or less by what the last head has behind those elements: a
    ///                    view that begins within the first head rotates from there on in each
    /// @param head_dim    from one head's first element to the next one's
    /// @param offsets     host; sequences' first tokens and the end, [sequences + 1]; positions start at 0 in each
    /// @param frequencies host; [rotary_dim / 2] angle per position, rope scaling applied; at most head_dim / 2
    /// @param attention_factor multiplies cos and sin (1 unless the rope type says otherwise)
    /// Source: RoFormer (arXiv 2104.09864).
    void rotary(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> offsets,
                std::span<const float> frequencies, float attention_factor, RotaryPairs pairs = RotaryPairs::halves);

    /// The same at any positions. @param positions host, [tokens], each at least 0
    virtual void rotary_at(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                           std::span<const float> frequencies, float attention_factor,
                           RotaryPairs pairs = RotaryPairs::halves) = 0;

  protected:
    /// @throws Failure unless rotary_at's arguments go together
    static void check_rotary(const TensorView& heads, std::int64_t head_dim, std::span<const std::int64_t> positions,
                             std::span<const float> frequencies);
};

}  // namespace fairgptq
