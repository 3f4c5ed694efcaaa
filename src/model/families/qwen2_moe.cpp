// Qwen2's mixtures of experts (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): Qwen2 but for the MLP, with an expert that every
// token reaches, weighted by a gate of its own.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_qwen2_moe(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.intermediate_size = 5632, .heads = 16, .key_value_heads = 16});
    read_layer_windows(reader, config, {.every_second_before = true});
    config.attention_bias = reader.flag("qkv_bias", true);
    config.attention_output_bias = false;
    read_dense_layers(reader, config);
    config.intermediate_size = reader.size("moe_intermediate_size", largest_width, 1408);
    config.shared_intermediate_size = reader.size("shared_expert_intermediate_size", largest_width, 5632);
    read_experts(reader, config, 60, 4);
    config.normalized_routing = reader.flag("norm_topk_prob", false);
}

}  // namespace

const FamilyEntry qwen2_moe_family{"Qwen2MoeForCausalLM", "qwen2_moe", read_qwen2_moe, [](const ModelConfig& config) {
                                       Family family = describe_mixture(config, "mlp", {.shared = "shared_expert"});
                                       family.shared_gate = "mlp.shared_expert_gate";
                                       return family;
                                   }};

}  // namespace fairgptq
