// Which tokens of a stereotypical sentence are compared with which of its anti-stereotypical partner.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/pair_differences.hpp"

namespace fairgptq {

enum class PairAlignment : std::uint8_t {
    position,  // token t with token t, up to the shorter length (Fair-GPTQ, arXiv 2509.15206)
    common,    // common prefix and suffix matched, the differing middle from its left end, the rest left out
    context,   // the common suffix alone: the same tokens after what differs, so that D is what the difference does to
               // them
    mean,      // one column a pair: mean over one sentence minus mean over the other
};

/// Columns of D for one pair whose sentences begin at rows first0 and first1 of the chunk.
void align_pair(PairAlignment alignment, std::span<const std::int32_t> ids0, std::int32_t first0,
                std::span<const std::int32_t> ids1, std::int32_t first1, std::vector<PairColumn>& columns);

}  // namespace fairgptq
