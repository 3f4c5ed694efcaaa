// Ragged batches: sequences one after another in a tensor's rows, told apart by their first rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "support/error.hpp"

namespace fairgptq {

/// @throws Failure unless the offsets start at 0, never fall, and end at `tokens`
inline void check_offsets(const char* operation, std::span<const std::int64_t> offsets, std::int64_t tokens) {
    bool valid = !offsets.empty() && offsets.front() == 0 && offsets.back() == tokens;
    for (std::size_t i = 1; valid && i < offsets.size(); ++i)
        valid = offsets[i - 1] <= offsets[i];
    if (!valid)
        throw Failure("{}: the sequences' offsets must start at 0, never fall, and end at {}", operation, tokens);
}

}  // namespace fairgptq
