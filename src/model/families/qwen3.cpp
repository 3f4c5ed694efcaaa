// Qwen3: Qwen2 without its biases, with an RMS norm on each head of query and key before they are rotated.
#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry qwen3_family{"Qwen3ForCausalLM", "qwen3",
                               [](const ConfigReader& reader, ModelConfig& config) {
                                   read_llama_like(reader, config, {.head_dim = 128});
                                   read_layer_windows(reader, config);
                                   read_biases(reader, config, false);
                               },
                               [](const ModelConfig& config) {
                                   Family family = describe_llama_like(config);
                                   family.query_norm = "self_attn.q_norm";
                                   family.key_norm = "self_attn.k_norm";
                                   return family;
                               }};

}  // namespace fairgptq
