// OLMo 2: Llama with norms behind attention and MLP instead of before them, and of query and key as a whole.
#include "model/families/families.hpp"

namespace fairgptq {

Family describe_olmo(const ModelConfig& config) {
    Family family = describe_llama_like(config);
    family.input_norm.clear();
    family.mlp_norm.clear();
    family.attention_output_norm = "post_attention_layernorm";
    family.mlp_output_norm = "post_feedforward_layernorm";
    family.query_norm = "self_attn.q_norm";
    family.key_norm = "self_attn.k_norm";
    family.query_norm_of_all_heads = true;
    return family;
}

const FamilyEntry olmo2_family{"Olmo2ForCausalLM", "olmo2",
                               [](const ConfigReader& reader, ModelConfig& config) {
                                   read_llama_like(reader, config, {.norm_epsilon = 1e-5});
                                   read_biases(reader, config, false);
                               },
                               describe_olmo};

}  // namespace fairgptq
