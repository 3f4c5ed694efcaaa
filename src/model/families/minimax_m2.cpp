// MiniMax-M2 (2.1 and 2.5, too): norms of query and key as a whole, heads that are rotated in part, experts chosen by
// their sigmoids.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

/// What published files say of a part that no released model has otherwise.
void require_parts(const ConfigReader& reader) {
    for (const char* flag : {"use_qk_norm", "use_routing_bias"})
        reader.require_flag(flag, true, "which is not supported");
    const auto require = [&](const char* field, const char* expected) {
        if (const std::string is = reader.text(field, expected); is != expected)
            reader.refuse(field, fmt::format("is '{}', where '{}' is supported", is, expected));
    };
    require("scoring_func", "sigmoid");
    require("qk_norm_type", "per_layer");
    if (reader.whole("shared_intermediate_size", 0, largest_width, 0) != 0)
        reader.refuse("shared_intermediate_size", "is not 0: an expert that every token reaches is not supported here");
    if (!reader.has("attn_type_list")) return;
    const nlohmann::json& types = reader.at("attn_type_list");
    if (!types.is_array() || std::ranges::any_of(types, [](const nlohmann::json& type) { return type != 1; }))
        reader.refuse("attn_type_list", "is not a list of 1 for each layer: linear attention is not supported");
}

void read_minimax_m2(const ConfigReader& reader, ModelConfig& config) {
    LlamaDefaults defaults{.intermediate_size = 1536,
                           .heads = 48,
                           .key_value_heads = 8,
                           .vocab_size = 200064,
                           .max_positions = 196608,
                           .head_dim = 128,
                           .rope_theta = 5e6,
                           .activation = "silu",
                           .rotary_factor = 1.0};
    if (reader.has("rotary_dim")) {  // as published; transformers 5 writes a factor
        const std::int64_t head_dim = reader.size("head_dim", largest_width, defaults.head_dim);
        defaults.rotary_factor =
            static_cast<double>(reader.size("rotary_dim", head_dim)) / static_cast<double>(head_dim);
    }
    read_llama_like(reader, config, defaults);
    require_parts(reader);
    read_experts(reader, config, 256, 8);
    config.router_score = RouterScore::sigmoid;
}

}  // namespace

const FamilyEntry minimax_m2_family{"MiniMaxM2ForCausalLM", "minimax_m2", read_minimax_m2,
                                    [](const ModelConfig& config) {
                                        Family family = describe_mixture(config, "block_sparse_moe",
                                                                         {.gate = "w1", .up = "w3", .down = "w2"});
                                        family.router_bias = "block_sparse_moe.e_score_correction_bias";
                                        family.query_norm = "self_attn.q_norm";
                                        family.key_norm = "self_attn.k_norm";
                                        family.query_norm_of_all_heads = true;
                                        return family;
                                    },
                                    "minimax"};

}  // namespace fairgptq
