#include "backend/rotary.hpp"

#include <numeric>
#include <vector>

#include "backend/sequences.hpp"

namespace fairgptq {

void RotaryOperations::rotary(TensorView heads, std::int64_t head_dim, std::span<const std::int64_t> offsets,
                              std::span<const float> frequencies, float attention_factor, RotaryPairs pairs) {
    check_offsets("rotary", offsets, heads.rows);
    std::vector<std::int64_t> positions(static_cast<std::size_t>(heads.rows));
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        std::iota(positions.begin() + offsets[s], positions.begin() + offsets[s + 1], std::int64_t{0});
    rotary_at(heads, head_dim, positions, frequencies, attention_factor, pairs);
}

void RotaryOperations::check_rotary(const TensorView& heads, std::int64_t head_dim,
                                    std::span<const std::int64_t> positions, std::span<const float> frequencies) {
    if (head_dim <= 0 || head_dim % 2 != 0)
        throw Failure("rotary: heads of {} elements, where an even number is needed", head_dim);
    if (frequencies.empty() || std::ssize(frequencies) > head_dim / 2)
        throw Failure("rotary: {} frequencies were given for heads of {} elements", frequencies.size(), head_dim);
    if (const std::int64_t last = heads.cols % head_dim; last != 0 && last < 2 * std::ssize(frequencies))
        throw Failure("rotary: {} features are not heads of {} elements, or the last has fewer than {} to rotate",
                      heads.cols, head_dim, 2 * frequencies.size());
    if (std::ssize(positions) != heads.rows)
        throw Failure("rotary: {} positions were given for {} tokens", positions.size(), heads.rows);
    for (const std::int64_t position : positions)
        if (position < 0) throw Failure("rotary: a token has the position {}", position);
}

}  // namespace fairgptq
