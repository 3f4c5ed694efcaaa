// What config.json says of experts, and of attention by latents, which comes with DeepSeek's.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config_reader.hpp"
#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t largest_experts = 4096;

}  // namespace

void read_experts(const ConfigReader& reader, ModelConfig& config, std::optional<std::int64_t> experts,
                  std::optional<std::int64_t> per_token, const ExpertFields& fields) {
    const char* field = fields.experts;
    if (reader.has("num_local_experts") && !reader.has(field)) field = "num_local_experts";
    config.experts = reader.size(field, largest_experts, experts);
    for (const char* other : {"num_experts", "num_local_experts"})
        if (reader.size(other, largest_experts, config.experts) != config.experts)
            reader.refuse(other, fmt::format("is another number than '{}'", field));
    config.experts_per_token = reader.size(fields.per_token, largest_experts, per_token);
    if (config.experts_per_token > config.experts)
        reader.refuse(fields.per_token, fmt::format("is {}, more than the {} experts that there are",
                                                    config.experts_per_token, config.experts));
}

void set_dense_layers(const ConfigReader& reader, const char* field, std::vector<bool> dense, ModelConfig& config) {
    const auto count = std::ranges::count(dense, true);
    if (count == config.layers) reader.refuse(field, "leaves no layer with experts, which this architecture has");
    if (count == 0) return;
    config.dense = std::move(dense);
    config.dense_intermediate_size = config.intermediate_size;
}

void read_shared_experts(const ConfigReader& reader, ModelConfig& config, std::int64_t count, const char* field) {
    config.shared_intermediate_size = config.intermediate_size * count;
    if (config.shared_intermediate_size > largest_width)
        reader.refuse(field, fmt::format("is {}: so many of {} are wider than {}", count, config.intermediate_size,
                                         largest_width));
}

void read_dense_layers(const ConfigReader& reader, ModelConfig& config) {
    const char* said_by = "decoder_sparse_step";
    const std::int64_t step = reader.whole(said_by, 1, largest_count, 1);
    std::vector<bool> dense(static_cast<std::size_t>(config.layers));
    for (std::size_t layer = 0; layer < dense.size(); ++layer)
        dense[layer] = (static_cast<std::int64_t>(layer) + 1) % step != 0;
    if (reader.has("mlp_only_layers")) {
        const nlohmann::json& list = reader.at("mlp_only_layers");
        if (!list.is_array()) reader.refuse("mlp_only_layers", "should be a list of layers");
        if (std::ranges::count(dense, false) > 0 && !list.empty()) said_by = "mlp_only_layers";
        for (const nlohmann::json& layer : list) {
            if (!layer.is_number_integer() || layer < 0 || layer >= config.layers)
                reader.refuse("mlp_only_layers", fmt::format("names layer {}, where there are 0 to {}",
                                                             json_text(layer), config.layers - 1));
            dense[layer.get<std::size_t>()] = true;
        }
    }
    set_dense_layers(reader, said_by, std::move(dense), config);
}

namespace {

/// @throws InvalidInput where config.json names another one
/// @param alias another name of the same
void require_text(const ConfigReader& reader, const char* field, const std::string& expected,
                  const std::string& alias = {}) {
    if (const std::string is = reader.text(field, expected); is != expected && is != alias)
        reader.refuse(field, fmt::format("is '{}', where '{}' is supported", is, expected));
}

/// Which layers have no experts: as mlp_layer_types says, or else the first ones.
void read_first_dense_layers(const ConfigReader& reader, ModelConfig& config, std::int64_t usual) {
    std::vector<bool> dense(static_cast<std::size_t>(config.layers));
    const char* said_by = "first_k_dense_replace";
    if (reader.has("mlp_layer_types")) {
        said_by = "mlp_layer_types";
        const nlohmann::json& types = reader.at(said_by);
        if (!types.is_array() || types.size() != dense.size())
            reader.refuse(said_by, fmt::format("should be a list of {} names, one a layer", config.layers));
        for (std::size_t layer = 0; layer < dense.size(); ++layer) {
            const std::string type = types[layer].is_string() ? types[layer].get<std::string>() : "";
            dense[layer] = type == "dense";
            if (!dense[layer] && type != "sparse")
                reader.refuse(said_by, fmt::format("has {} for layer {}, where 'dense' or 'sparse' is expected",
                                                   json_text(types[layer]), layer));
        }
    } else {
        const std::int64_t first = reader.whole(said_by, 0, largest_count, usual);
        std::fill_n(dense.begin(), std::min(first, config.layers), true);
    }
    set_dense_layers(reader, said_by, std::move(dense), config);
}

/// Groups of experts, of which a token's best are chosen first.
void read_expert_groups(const ConfigReader& reader, ModelConfig& config, const DeepseekExperts& defaults) {
    const std::int64_t groups = reader.size("n_group", largest_experts, defaults.groups);
    const std::int64_t chosen = reader.size("topk_group", largest_experts, std::min(groups, defaults.groups_per_token));
    const std::int64_t each = config.experts / groups;
    if (config.experts % groups != 0)
        reader.refuse("n_group", fmt::format("is {}, which does not divide the {} experts", groups, config.experts));
    if (chosen > groups) reader.refuse("topk_group", fmt::format("is {}, more than the {} groups", chosen, groups));
    if (groups > 1 && config.router_score == RouterScore::sigmoid && each < 2)
        reader.refuse("n_group", fmt::format("is {}: groups of less than two experts cannot be compared", groups));
    if (config.experts_per_token > chosen * each)
        reader.refuse("topk_group", fmt::format("is {}: so many groups of {} experts have fewer than the {} that a "
                                                "token reaches",
                                                chosen, each, config.experts_per_token));
    config.expert_groups = groups;
    config.groups_per_token = chosen;
}

}  // namespace

void read_latent_attention(const ConfigReader& reader, ModelConfig& config, const LatentDefaults& defaults) {
    if (config.key_value_heads != config.heads)
        reader.refuse("num_key_value_heads", fmt::format("is {}, where each of the {} attention heads has keys",
                                                         config.key_value_heads, config.heads));
    LatentAttention& latent = config.latent;
    if (config.rope.type == "longrope")
        reader.refuse(reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling",
                      "is of type 'longrope', which is not supported for this architecture");
    if (!reader.is_null("q_lora_rank"))
        latent.query_rank = reader.size("q_lora_rank", largest_width, defaults.query_rank);
    latent.key_value_rank = reader.size("kv_lora_rank", largest_width, 512);
    config.rotary_dim = reader.size("qk_rope_head_dim", largest_count, 64);
    if (config.rotary_dim % 2 != 0)
        reader.refuse("qk_rope_head_dim", fmt::format("is {}: rotary positions need an even one", config.rotary_dim));
    const std::int64_t unrotated = reader.size("qk_nope_head_dim", largest_count, defaults.unrotated_dim);
    config.head_dim = unrotated + config.rotary_dim;
    if (config.head_dim % 2 != 0) reader.refuse("qk_nope_head_dim", fmt::format("is {}, an odd number", unrotated));
    config.value_dim = reader.size("v_head_dim", largest_count, defaults.value_dim);
    if (config.value_dim > config.head_dim)
        reader.refuse("v_head_dim", fmt::format("is {}, more than the {} elements of a head's keys", config.value_dim,
                                                config.head_dim));
    if (config.heads * (unrotated + std::max(config.value_dim, config.rotary_dim)) > largest_width)
        reader.refuse("qk_nope_head_dim", fmt::format("is {}: {} heads of that size are wider than {}", unrotated,
                                                      config.heads, largest_width));
    config.rotary_pairs = reader.flag("rope_interleave", true) ? RotaryPairs::neighbours : RotaryPairs::halves;
    if (config.rope.score_factor != 1)
        config.attention_multiplier = config.rope.score_factor / std::sqrt(static_cast<double>(config.head_dim));
    config.attention_bias = reader.flag("attention_bias", false);
}

void read_deepseek_experts(const ConfigReader& reader, ModelConfig& config, const DeepseekExperts& defaults) {
    read_first_dense_layers(reader, config, defaults.dense_layers);
    config.intermediate_size = reader.size("moe_intermediate_size", largest_width, defaults.width);
    read_experts(reader, config, defaults.experts, defaults.per_token, {.experts = "n_routed_experts"});
    read_shared_experts(reader, config, reader.size("n_shared_experts", largest_experts, defaults.shared),
                        "n_shared_experts");
    const bool sigmoid = defaults.score == RouterScore::sigmoid;
    config.router_score = defaults.score;
    if (sigmoid)
        require_text(reader, "scoring_func", "sigmoid", "noaux_tc");  // dots.llm1's name for it
    else
        require_text(reader, "scoring_func", "softmax");
    config.normalized_routing = reader.flag("norm_topk_prob", defaults.normalized);
    config.routing_scale = reader.number("routed_scaling_factor", 1e-6, 1e6, defaults.scale);
    if (reader.size("moe_layer_freq", largest_count, 1) != 1)
        reader.refuse("moe_layer_freq",
                      "is not 1: layers without experts among those that have some are not supported");
    if (sigmoid) require_text(reader, "topk_method", "noaux_tc");
    read_expert_groups(reader, config, defaults);
}

}  // namespace fairgptq
