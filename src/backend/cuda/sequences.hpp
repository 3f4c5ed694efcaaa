// Ragged batches: sequences one after another in a tensor's rows, told apart by their first rows; for kernels that look
// at one token at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "support/error.hpp"

namespace fairgptq::cuda {

/// The first token of each token's sequence.
/// @throws Failure unless the offsets start at 0, never fall, and end at `tokens`
inline std::vector<std::int32_t> first_tokens(const char* operation, std::span<const std::int64_t> offsets,
                                              std::int64_t tokens) {
    bool valid = !offsets.empty() && offsets.front() == 0 && offsets.back() == tokens;
    for (std::size_t i = 1; valid && i < offsets.size(); ++i)
        valid = offsets[i - 1] <= offsets[i];
    if (!valid)
        throw Failure("{}: the sequences' offsets must start at 0, never fall, and end at {}", operation, tokens);
    std::vector<std::int32_t> first;
    first.reserve(static_cast<std::size_t>(tokens));
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        first.insert(first.end(), static_cast<std::size_t>(offsets[s + 1] - offsets[s]),
                     static_cast<std::int32_t>(offsets[s]));
    return first;
}

}  // namespace fairgptq::cuda
