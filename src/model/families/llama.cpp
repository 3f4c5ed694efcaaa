// Llama 1 to 3, and models that keep its form (SmolLM2, TinyLlama, …).
#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry llama_family{"LlamaForCausalLM", "llama",
                               [](const ConfigReader& reader, ModelConfig& config) {
                                   read_llama_like(reader, config);
                                   config.attention_bias = reader.flag("attention_bias", false);
                                   config.mlp_bias = reader.flag("mlp_bias", false);
                               },
                               [](const ModelConfig& config) {
                                   return describe_llama_like(config, {.query_key_value = config.attention_bias,
                                                                       .output = config.attention_bias,
                                                                       .mlp = config.mlp_bias});
                               }};

}  // namespace fairgptq
