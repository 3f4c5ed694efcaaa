// GLM-4.5 (Air, too), 4.6 and 4.7: experts from the second or fourth layer on, chosen by their sigmoids, beside one
// that every token reaches; heads that are rotated by half.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_glm4_moe(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 10944,
                     .heads = 96,
                     .key_value_heads = 8,
                     .vocab_size = 151552,
                     .max_positions = 131072,
                     .norm_epsilon = 1e-5,
                     .activation = "silu",
                     .rotary_factor = 0.5});
    read_biases(reader, config, false);
    config.attention_output_bias = false;
    read_deepseek_experts(reader, config, {.experts = 128, .per_token = 8, .shared = 1, .dense_layers = 1});
    config.query_key_norm = reader.flag("use_qk_norm", false);
}

}  // namespace

const FamilyEntry glm4_moe_family{"Glm4MoeForCausalLM", "glm4_moe", read_glm4_moe, [](const ModelConfig& config) {
                                      Family family = describe_mixture(config, "mlp");
                                      family.router_bias = "mlp.gate.e_score_correction_bias";
                                      if (config.query_key_norm) {
                                          family.query_norm = "self_attn.q_norm";
                                          family.key_norm = "self_attn.k_norm";
                                      }
                                      return family;
                                  }};

}  // namespace fairgptq
