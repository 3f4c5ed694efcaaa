// What the Gemma models have in common.
#pragma once

#include "model/families/families.hpp"

namespace fairgptq {

/// Biases, the multiplier of embeddings, and that attention is causal.
void read_gemma(const ConfigReader& reader, ModelConfig& config);
/// Gemma 2's and 3's multiplier of scores.
void read_query_scale(const ConfigReader& reader, ModelConfig& config);

/// Llama with 1 added to the norms' weights.
Family describe_gemma(const ModelConfig& config);
/// Gemma 2's and 3's norms, before and behind attention and MLP.
Family describe_gemma2(const ModelConfig& config);

}  // namespace fairgptq
