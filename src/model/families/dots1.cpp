// dots.llm1: norms of each head of query and key, as in Qwen3; experts chosen by their sigmoids, beside some that every
// token reaches.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_dots1(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.intermediate_size = 10944});
    read_biases(reader, config, false);
    read_layer_windows(reader, config, {.switched = false, .max_layers = 62});
    read_deepseek_experts(reader, config, {.normalized = false});
}

}  // namespace

const FamilyEntry dots1_family{"Dots1ForCausalLM", "dots1", read_dots1, [](const ModelConfig& config) {
                                   Family family = describe_mixture(config, "mlp");
                                   family.router_bias = "mlp.gate.e_score_correction_bias";
                                   family.query_norm = "self_attn.q_norm";
                                   family.key_norm = "self_attn.k_norm";
                                   return family;
                               }};

}  // namespace fairgptq
