#pragma once

#include <cstdint>
#include <vector>

#include "model/config.hpp"

namespace fairgptq {

/// Angle per position of each pair of a head's elements, rope scaling applied: [head_dim / 2], computed in double and
/// rounded once, to rope.frequency_type.
/// Element i of `default` is theta^(−2i / head_dim); `linear` divides it by the factor; `llama3` divides only the slow
/// ones, whose wavelength is beyond the original context, and blends in between.
/// Source: RoFormer (arXiv 2104.09864); positional interpolation (arXiv 2306.15595); Llama 3 (arXiv 2407.21783).
std::vector<float> rope_frequencies(const RopeSettings& rope, std::int64_t head_dim);

}  // namespace fairgptq
