// What Gemma 2 and Gemma 3 have in common.
#pragma once

#include "model/families/families.hpp"

namespace fairgptq {

/// Biases, the multipliers of scores and embeddings, and that attention is causal.
void read_gemma(const ConfigReader& reader, ModelConfig& config);

/// Norms before and behind attention and MLP, with 1 added to their weights.
Family describe_gemma(const ModelConfig& config);

}  // namespace fairgptq
