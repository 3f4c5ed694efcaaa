// OLMoE: Llama with norms of query and key as a whole, and a mixture of experts.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_olmoe(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.norm_epsilon = 1e-5});
    read_biases(reader, config, false);
    read_experts(reader, config, 64, 8);
    config.normalized_routing = reader.flag("norm_topk_prob", false);
    if (reader.has("clip_qkv"))
        reader.refuse("clip_qkv", "is there: query, key and value that are clipped are not supported");
}

}  // namespace

const FamilyEntry olmoe_family{"OlmoeForCausalLM", "olmoe", read_olmoe, [](const ModelConfig& config) {
                                   Family family = describe_mixture(config, "mlp");
                                   family.query_norm = "self_attn.q_norm";
                                   family.key_norm = "self_attn.k_norm";
                                   family.query_norm_of_all_heads = true;
                                   return family;
                               }};

}  // namespace fairgptq
