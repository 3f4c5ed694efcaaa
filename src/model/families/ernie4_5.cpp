// ERNIE 4.5 (0.3B) and its mixtures of experts (21B-A3B, 300B-A47B): Llama with heads of which every second element
// turns with its neighbour; experts are chosen by their part of a softmax plus a correction, beside some that every
// token reaches.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_common(const ConfigReader& reader, ModelConfig& config, LlamaDefaults defaults) {
    defaults.vocab_size = 103424;
    defaults.max_positions = 131072;
    defaults.rope_theta = 5e5;
    defaults.norm_epsilon = 1e-5;
    defaults.tied_embeddings = true;
    defaults.activation = "silu";
    read_llama_like(reader, config, defaults);
    config.rotary_pairs = RotaryPairs::neighbours;
}

void read_ernie(const ConfigReader& reader, ModelConfig& config) {
    read_common(reader, config, {.intermediate_size = 3072, .heads = 16, .key_value_heads = 2, .head_dim = 128});
    config.attention_bias = config.mlp_bias = reader.flag("use_bias", false);
}

void read_ernie_moe(const ConfigReader& reader, ModelConfig& config) {
    read_common(reader, config, {.intermediate_size = 12288, .heads = 20, .key_value_heads = 4});
    reader.require_flag("use_bias", false, "its experts have none that are known");
    const std::int64_t first = reader.whole("moe_layer_start_index", 0, largest_count, 1);
    const std::int64_t end = reader.whole("moe_layer_end_index", -1, largest_count, -1);
    const std::int64_t last = end == -1 ? config.layers - 1 : end;
    const std::int64_t interval = reader.size("moe_layer_interval", largest_count, 1);
    std::vector<bool> dense;
    for (std::int64_t layer = 0; layer < config.layers; ++layer)
        dense.push_back(layer < first || layer > last || (layer + 1) % interval != 0);
    const char* reason = first >= config.layers ? "moe_layer_start_index"
                         : last < first         ? "moe_layer_end_index"
                                                : "moe_layer_interval";
    set_dense_layers(reader, reason, std::move(dense), config);
    config.intermediate_size = reader.size("moe_intermediate_size", largest_width, 1536);
    read_experts(reader, config, 64, 6, {.experts = "moe_num_experts", .per_token = "moe_k"});
    read_shared_experts(reader, config, reader.whole("moe_num_shared_experts", 0, largest_count, 2),
                        "moe_num_shared_experts");
    reader.number("moe_norm_min", 0, 1e-6, 1e-12);  // below it the sum of a token's experts would not be 1
}

}  // namespace

const FamilyEntry ernie_family{"Ernie4_5ForCausalLM", "ernie4_5", read_ernie, describe_llama_like};

const FamilyEntry ernie_moe_family{"Ernie4_5_MoeForCausalLM", "ernie4_5_moe", read_ernie_moe,
                                   [](const ModelConfig& config) {
                                       Family family = describe_mixture(config, "mlp");
                                       family.further_prefix = "model.mtp_block.{}.";
                                       family.router_bias = "mlp.moe_statics.e_score_correction_bias";
                                       family.router_bias_rows = 1;
                                       return family;
                                   }};

}  // namespace fairgptq
