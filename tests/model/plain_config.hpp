// A small Llama's settings, for tests that need names and sizes and no weights.
#pragma once

#include "model/config.hpp"

namespace fairgptq::testing {

inline ModelConfig plain_config(std::int64_t layers) {
    ModelConfig config;
    config.model_type = "llama";
    config.architecture = "LlamaForCausalLM";
    config.hidden_size = 64;
    config.intermediate_size = 128;
    config.layers = layers;
    config.heads = config.key_value_heads = 4;
    config.head_dim = 16;
    config.vocab_size = 100;
    config.windows.assign(static_cast<std::size_t>(layers), 0);
    return config;
}

/// GLM-4.5's: experts, and a shared one, but for the first layer.
inline ModelConfig mixture_config(std::int64_t layers) {
    ModelConfig config = plain_config(layers);
    config.architecture = "Glm4MoeForCausalLM";
    config.experts = 3;
    config.experts_per_token = 1;
    config.shared_intermediate_size = 32;
    config.dense_intermediate_size = 256;
    config.dense.assign(static_cast<std::size_t>(layers), false);
    config.dense[0] = true;
    return config;
}

}  // namespace fairgptq::testing
