#pragma once

#include <cstdint>
#include <vector>

#include "model/config.hpp"

namespace fairgptq {

/// Angle per position of each pair of a head's elements, rope scaling applied: [rotary_dim / 2], computed in double and
/// rounded once, to rope.frequency_type.
/// Element i of `default` is theta^(−2i / rotary_dim); `linear` divides it by the factor; `llama3` and `yarn` divide
/// only the slow ones, which turn little within the original context, and blend in between; `longrope` divides each by
/// its own. Source: RoFormer (arXiv 2104.09864); positional interpolation (2306.15595); Llama 3 (2407.21783); YaRN
/// (2309.00071); LongRoPE (2402.13753).
std::vector<float> rope_frequencies(const RopeSettings& rope, std::int64_t rotary_dim);

}  // namespace fairgptq
