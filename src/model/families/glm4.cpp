// GLM-4 (9B) and GLM-4-0414 (9B, 32B, Z1): Llama whose gate and up are one linear, with heads of which every second
// element turns with its neighbour; the second with norms behind attention and MLP, too.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_glm(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 13696,
                     .heads = 32,
                     .key_value_heads = 2,
                     .vocab_size = 151552,
                     .max_positions = 131072,
                     .head_dim = 128,
                     .norm_epsilon = 1.5625e-7,
                     .activation = "silu",
                     .rotary_factor = 0.5});
    config.rotary_pairs = RotaryPairs::neighbours;
    config.attention_bias = reader.flag("attention_bias", true);
    config.attention_output_bias = false;
}

Family describe_glm(const ModelConfig& config) {
    Family family = describe_llama_like(config);
    family.stages[2] = {{{"mlp.gate_up_proj", 2 * config.intermediate_size, config.hidden_size}}};
    return family;
}

}  // namespace

const FamilyEntry glm_family{"GlmForCausalLM", "glm", read_glm, describe_glm};

const FamilyEntry glm4_family{"Glm4ForCausalLM", "glm4", read_glm, [](const ModelConfig& config) {
                                  Family family = describe_glm(config);
                                  family.attention_output_norm = "post_self_attn_layernorm";
                                  family.mlp_output_norm = "post_mlp_layernorm";
                                  return family;
                              }};

}  // namespace fairgptq
