// Controls of what the bias term learns from: with pairs that are none, its effect on bias must vanish.
#pragma once

#include <cstdint>

#include "calibration/tokens.hpp"

namespace fairgptq {

enum class PairControl : std::uint8_t {
    as_given,
    shuffled,   // each stereotypical sentence beside another pair's anti-stereotypical one
    unrelated,  // … beside an unrelated sentence of its own item (StereoSet has them)
};

/// Puts other sentences in the place of the anti-stereotypical ones. The shuffle is one cycle through all pairs
/// (Sattolo's algorithm), the same each time: no pair stays together, and a run's settings need no more than its name.
/// Source of the controls: Fair-GPTQ (arXiv 2509.15206).
/// @throws InvalidInput if there are fewer than two pairs to shuffle, or not an unrelated sentence for every pair
void apply_pair_control(PairControl control, TokenFile& tokens);

}  // namespace fairgptq
