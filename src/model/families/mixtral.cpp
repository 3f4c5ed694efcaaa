// Mixtral: Mistral with a mixture of experts, whose linears have names of their own in its files.
#include <algorithm>

#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry mixtral_family{
    "MixtralForCausalLM", "mixtral",
    [](const ConfigReader& reader, ModelConfig& config) {
        read_llama_like(reader, config, {.key_value_heads = 8, .rope_theta = 1e6, .norm_epsilon = 1e-5});
        if (reader.has("sliding_window"))
            std::fill(config.windows.begin(), config.windows.end(), reader.size("sliding_window", largest_vocabulary));
        read_experts(reader, config, 8, 2);
    },
    [](const ModelConfig& config) {
        return describe_mixture(config, "block_sparse_moe", {.gate = "w1", .up = "w3", .down = "w2"});
    }};

}  // namespace fairgptq
