// Qwen3's mixtures of experts (Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder): Qwen3 but for the MLP.
#include <algorithm>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_qwen3_moe(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.intermediate_size = 6144, .key_value_heads = 4});
    // All layers are alike: transformers asks neither layer_types nor max_window_layers here.
    if (reader.flag("use_sliding_window", false) && !reader.is_null("sliding_window"))
        std::fill(config.windows.begin(), config.windows.end(),
                  reader.size("sliding_window", largest_vocabulary, 4096));
    read_biases(reader, config, false);
    read_dense_layers(reader, config);
    config.intermediate_size = reader.size("moe_intermediate_size", largest_width, 768);
    read_experts(reader, config, 128, 8);
    config.normalized_routing = reader.flag("norm_topk_prob", false);
}

}  // namespace

const FamilyEntry qwen3_moe_family{"Qwen3MoeForCausalLM", "qwen3_moe", read_qwen3_moe, [](const ModelConfig& config) {
                                       Family family = describe_mixture(config, "mlp");
                                       family.query_norm = "self_attn.q_norm";
                                       family.key_norm = "self_attn.k_norm";
                                       return family;
                                   }};

}  // namespace fairgptq
