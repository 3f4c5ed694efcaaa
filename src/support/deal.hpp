// Work of unequal pieces, dealt to ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fairgptq {

/// Who does which piece of work: the costliest first, each by the rank that has least to do so far.
/// @returns the rank of each piece, the same wherever it is asked
std::vector<int> deal(std::span<const std::int64_t> costs, int ranks);

}  // namespace fairgptq
