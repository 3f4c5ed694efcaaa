#include "model/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "model/config_reader.hpp"
#include "model/families/families.hpp"
#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {

void ConfigReader::refuse(const char* field, const std::string& what) const {
    throw InvalidInput("{}: '{}{}' {}", file_, prefix_, field, what);
}

bool ConfigReader::has(const char* field) const {
    return object_.contains(field) && !object_.at(field).is_null();
}

const nlohmann::json& ConfigReader::at(const char* field) const {
    if (!has(field)) refuse(field, "is missing");
    return object_.at(field);
}

bool ConfigReader::is_null(const char* field) const {
    return object_.contains(field) && object_.at(field).is_null();
}

std::int64_t ConfigReader::whole(const char* field, std::int64_t smallest, std::int64_t largest,
                                 std::optional<std::int64_t> fallback) const {
    if (fallback && !has(field)) return *fallback;
    const nlohmann::json& value = at(field);
    if (!value.is_number_integer()) refuse(field, "should be a whole number");
    // Unsigned numbers may be beyond what a signed one holds.
    const bool too_large =
        value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(largest);
    if (too_large || value.get<std::int64_t>() < smallest || value.get<std::int64_t>() > largest)
        refuse(field, fmt::format("is {}, outside {} to {}", json_text(value), smallest, largest));
    return value.get<std::int64_t>();
}

double ConfigReader::number(const char* field, double smallest, double largest, std::optional<double> fallback) const {
    if (fallback && !has(field)) return *fallback;
    const nlohmann::json& value = at(field);
    if (!value.is_number()) refuse(field, "should be a number");
    const auto result = value.get<double>();
    if (!(result >= smallest && result <= largest))
        refuse(field, fmt::format("is {}, outside {} to {}", result, smallest, largest));
    return result;
}

bool ConfigReader::flag(const char* field, bool fallback) const {
    if (!has(field)) return fallback;
    if (!at(field).is_boolean()) refuse(field, "should be true or false");
    return at(field).get<bool>();
}

std::string ConfigReader::text(const char* field, std::optional<std::string> fallback) const {
    if (fallback && !has(field)) return *fallback;
    if (!at(field).is_string()) refuse(field, "should be text");
    return at(field).get<std::string>();
}

void ConfigReader::require_flag(const char* field, bool expected, const char* why) const {
    if (flag(field, expected) != expected) refuse(field, fmt::format("is {}: {}", !expected, why));
}

ConfigReader ConfigReader::object(const char* field) const {
    if (!at(field).is_object()) refuse(field, "should be a JSON object");
    return {at(field), file_, prefix_ + field + "."};
}

Activation read_activation(const ConfigReader& reader, const char* field, std::optional<std::string> fallback) {
    const std::string name = reader.text(field, std::move(fallback));
    if (name == "silu" || name == "swish") return Activation::silu;
    if (name == "relu") return Activation::relu;
    if (name == "gelu") return Activation::gelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
    reader.refuse(
        field,
        fmt::format(
            "is '{}', an activation that is not supported (silu, relu, gelu, gelu_new and gelu_pytorch_tanh are)",
            name));
}

namespace {

constexpr double most_positions = 1e9;
constexpr std::int64_t largest_experts = 4096;
double positions_of_rope(const ConfigReader& scaling, std::optional<double> fallback = {}) {
    return scaling.number("original_max_position_embeddings", 2, most_positions, fallback);
}

/// As sqrt(1 / t) of the paper's equation 22 (arXiv 2309.00071).
double yarn_attention(double factor, double multiplier) {
    return factor <= 1 ? 1 : 0.1 * multiplier * std::log(factor) + 1;
}

void read_yarn(const ConfigReader& scaling, double max_positions, RopeSettings& rope) {
    rope.beta_fast = scaling.number("beta_fast", 1e-3, 1e6, rope.beta_fast);
    rope.beta_slow = scaling.number("beta_slow", 1e-3, 1e6, rope.beta_slow);
    if (rope.beta_fast < rope.beta_slow) scaling.refuse("beta_fast", "should not be smaller than beta_slow");
    rope.truncate = scaling.flag("truncate", true);
    if (rope.theta <= 1) scaling.refuse("rope_type", "is 'yarn', which needs a rope_theta larger than 1");
    rope.original_max_position_embeddings = positions_of_rope(scaling, max_positions);
    const double multiplier = scaling.number("mscale", 0, 1e3, 0);
    const double multiplier_all = scaling.number("mscale_all_dim", 0, 1e3, 0);
    const bool both = multiplier > 0 && multiplier_all > 0;
    if (multiplier_all > 0) {
        const double factor = yarn_attention(rope.factor, multiplier_all);
        rope.score_factor = factor * factor;
    }
    rope.attention_factor =
        scaling.number("attention_factor", 1e-3, 1e3,
                       both ? yarn_attention(rope.factor, multiplier) / yarn_attention(rope.factor, multiplier_all)
                            : yarn_attention(rope.factor, 1));
}

/// @param where an object that may have partial_rotary_factor
/// @param usual the family's factor where none is given; nothing: heads are rotated whole
/// @returns how many elements of a head are rotated
std::int64_t read_rotary_dim(const ConfigReader& where, std::int64_t head_dim, std::optional<double> usual = {}) {
    constexpr const char* field = "partial_rotary_factor";
    const double factor = where.number(field, 0, 1, usual.value_or(1.0));
    if (factor == 1) return head_dim;
    if (!usual) where.refuse(field, "is not 1, where heads of this architecture are rotated whole");
    const auto rotated = static_cast<std::int64_t>(static_cast<double>(head_dim) * factor);
    if (rotated == 0 || rotated % 2 != 0)
        where.refuse(field, fmt::format("is {}: of a head's {} elements {} would be rotated, not an even number",
                                        factor, head_dim, rotated));
    return rotated;
}

/// @param reader of the whole file, where Phi-3 has the original context
void read_longrope(const ConfigReader& reader, const ConfigReader& scaling, std::int64_t rotary_dim,
                   double max_positions, RopeSettings& rope) {
    const double original =
        reader.has("original_max_position_embeddings") ? positions_of_rope(reader) : positions_of_rope(scaling);
    rope.original_max_position_embeddings = original;
    rope.factor = scaling.number("factor", 1e-3, 1e6, max_positions / original);
    rope.attention_factor =
        scaling.number("attention_factor", 1e-3, 1e3,
                       rope.factor <= 1 ? 1 : std::sqrt(1 + std::log(rope.factor) / std::log(original)));
    const nlohmann::json& factors = scaling.at("short_factor");
    if (!factors.is_array() || std::ssize(factors) != rotary_dim / 2)
        scaling.refuse("short_factor", fmt::format("should be a list of {} numbers, half the elements of a head that "
                                                   "are rotated",
                                                   rotary_dim / 2));
    for (const nlohmann::json& one : factors) {
        if (!one.is_number() || !(one.get<double>() > 0)) scaling.refuse("short_factor", "should be positive numbers");
        rope.short_factor.push_back(one.get<double>());
    }
}

/// @param rope what is known without it
RopeSettings read_scaled_rope(const ConfigReader& reader, const ConfigReader& scaling, const ModelConfig& config,
                              RopeSettings rope) {
    rope.theta = scaling.number("rope_theta", 1, 1e12, rope.theta);
    const char* type_field = scaling.has("rope_type") ? "rope_type" : "type";
    rope.type = scaling.text(type_field, "default");
    if (rope.type == "su") rope.type = "longrope";    // its first name
    if (rope.type == "mrope") rope.type = "default";  // a picture's three positions; a text's tokens have one
    const auto max_positions = static_cast<double>(config.max_positions);
    if (rope.type == "default") return rope;
    if (rope.type == "longrope") {
        read_longrope(reader, scaling, config.rotary_dim, max_positions, rope);
        return rope;
    }
    if (rope.type != "linear" && rope.type != "llama3" && rope.type != "yarn")
        scaling.refuse(type_field, fmt::format("is '{}', a rope type that is not supported (default, linear, llama3, "
                                               "yarn and longrope are)",
                                               rope.type));
    rope.factor = scaling.number("factor", 1e-3, 1e6);
    if (rope.type == "yarn") read_yarn(scaling, max_positions, rope);
    if (rope.type != "llama3") return rope;
    rope.low_freq_factor = scaling.number("low_freq_factor", 1e-3, 1e6);
    rope.high_freq_factor = scaling.number("high_freq_factor", 1e-3, 1e6);
    if (rope.high_freq_factor <= rope.low_freq_factor)
        scaling.refuse("high_freq_factor", "should be larger than low_freq_factor");
    rope.original_max_position_embeddings = positions_of_rope(scaling);
    return rope;
}

constexpr const char* of_full_attention = "full_attention";
constexpr const char* of_windows = "sliding_attention";

/// @param config gets what is rotated, too
void read_rope(const ConfigReader& reader, ModelConfig& config, const LlamaDefaults& defaults) {
    // transformers 5 keeps all in rope_parameters; 4 had rope_theta beside rope_scaling, whose type was once called
    // "type".
    const char* field = reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    config.rotary_dim = read_rotary_dim(reader, config.head_dim, defaults.rotary_factor);
    config.rope.theta = reader.number("rope_theta", 1, 1e12, defaults.rope_theta);
    config.window_rope = config.rope;
    if (!reader.has(field)) return;
    const ConfigReader scaling = reader.object(field);
    for (const char* kind : {of_full_attention, of_windows})
        if (scaling.has(kind)) scaling.refuse(kind, "is there, but all layers of this architecture rotate alike");
    if (scaling.has("partial_rotary_factor")) {
        const std::int64_t beside = config.rotary_dim;
        config.rotary_dim = read_rotary_dim(scaling, config.head_dim, defaults.rotary_factor);
        if (reader.has("partial_rotary_factor") && config.rotary_dim != beside)
            scaling.refuse("partial_rotary_factor", fmt::format("is another one than beside '{}'", field));
    }
    config.rope = config.window_rope = read_scaled_rope(reader, scaling, config, config.rope);
}

/// Which layers have a window, where layer_types says it.
std::optional<std::vector<bool>> read_layer_types(const ConfigReader& reader, const ModelConfig& config) {
    if (!reader.has("layer_types")) return {};
    const nlohmann::json& types = reader.at("layer_types");
    if (!types.is_array() || types.size() != config.windows.size())
        reader.refuse("layer_types", fmt::format("should be a list of {} names, one a layer", config.layers));
    std::vector<bool> sliding;
    for (std::size_t layer = 0; layer < types.size(); ++layer) {
        sliding.push_back(types[layer] == of_windows);
        if (!sliding.back() && types[layer] != of_full_attention)
            reader.refuse("layer_types", fmt::format("has {} for layer {}, an attention that is not supported",
                                                     json_text(types[layer]), layer));
    }
    return sliding;
}

std::string read_architecture(const ConfigReader& reader) {
    const nlohmann::json& list = reader.at("architectures");
    if (!list.is_array() || list.size() != 1 || !list.front().is_string())
        reader.refuse("architectures", "should be a list of one name");
    return list.front().get<std::string>();
}

}  // namespace

void require_blocks_of_floats(const ConfigReader& quantization) {
    if (quantization.text("quant_method", "") != "fp8")
        quantization.refuse("quant_method", "is not 'fp8': the model is quantized already, and its original is needed");
    const bool blocks = quantization.has("weight_block_size") &&
                        quantization.at("weight_block_size") == nlohmann::json::array({128, 128});
    if (!blocks)
        quantization.refuse("weight_block_size",
                            "is not [128, 128]: of 8-bit floats those with a factor for each block of 128 × 128 are "
                            "read, and for others the original is needed");
}

std::optional<std::string> read_dtype(const ConfigReader& reader) {
    const char* field = reader.has("dtype") ? "dtype" : "torch_dtype";
    if (!reader.has(field)) return {};
    std::string name = reader.text(field);
    constexpr std::array<std::string_view, 3> known{"float32", "float16", "bfloat16"};
    if (std::find(known.begin(), known.end(), name) == known.end())
        reader.refuse(field, fmt::format("is '{}' where float32, float16 or bfloat16 is expected", name));
    return name;
}

void read_llama_like(const ConfigReader& reader, ModelConfig& config, const LlamaDefaults& defaults) {
    config.hidden_size = reader.size("hidden_size", largest_width);
    config.intermediate_size = reader.size("intermediate_size", largest_width, defaults.intermediate_size);
    config.layers = reader.size("num_hidden_layers", largest_count);
    config.heads = reader.size("num_attention_heads", largest_count, defaults.heads);
    config.key_value_heads =
        reader.size("num_key_value_heads", largest_count, defaults.key_value_heads.value_or(config.heads));
    if (config.heads % config.key_value_heads != 0)
        reader.refuse("num_key_value_heads", fmt::format("is {}, which does not divide the {} attention heads",
                                                         config.key_value_heads, config.heads));
    if (!reader.has("head_dim") && !defaults.head_dim && config.hidden_size % config.heads != 0)
        reader.refuse("num_attention_heads",
                      fmt::format("is {}, which does not divide the hidden size {}", config.heads, config.hidden_size));
    config.head_dim =
        reader.size("head_dim", largest_count, defaults.head_dim.value_or(config.hidden_size / config.heads));
    if (config.head_dim % 2 != 0)
        reader.refuse("head_dim", fmt::format("is {}: rotary positions need an even one", config.head_dim));
    if (config.heads * config.head_dim > largest_width)
        reader.refuse("head_dim", fmt::format("is {}: {} heads of that size are wider than {}", config.head_dim,
                                              config.heads, largest_width));
    config.vocab_size = reader.size("vocab_size", largest_vocabulary, defaults.vocab_size);
    config.max_positions = reader.size("max_position_embeddings", largest_vocabulary, defaults.max_positions);
    config.norm_epsilon = reader.number("rms_norm_eps", 0, 1, defaults.norm_epsilon);
    config.activation = read_activation(reader, defaults.activation_field, defaults.activation);
    config.rotary_dim = config.head_dim;
    if (!defaults.rope_of_its_own) read_rope(reader, config, defaults);
    config.windows.assign(static_cast<std::size_t>(config.layers), 0);
    config.rotary.assign(config.windows.size(), true);
    config.tied_embeddings = reader.flag("tie_word_embeddings", defaults.tied_embeddings);
}

void read_ropes_by_layer_type(const ConfigReader& reader, ModelConfig& config, double theta, double window_theta,
                              const char* window_theta_field) {
    config.rope.theta = reader.number("rope_theta", 1, 1e12, theta);
    config.window_rope.theta =
        window_theta_field == nullptr ? config.rope.theta : reader.number(window_theta_field, 1, 1e12, window_theta);
    read_rotary_dim(reader, config.head_dim);
    if (reader.has("rope_scaling")) {
        const ConfigReader scaling = reader.object("rope_scaling");
        read_rotary_dim(scaling, config.head_dim);
        config.rope = read_scaled_rope(reader, scaling, config, config.rope);
    }
    if (!reader.has("rope_parameters")) return;
    if (reader.has("rope_scaling")) reader.refuse("rope_scaling", "is there beside rope_parameters");
    const ConfigReader both = reader.object("rope_parameters");
    if (!both.has(of_full_attention) && !both.has(of_windows))
        reader.refuse("rope_parameters",
                      fmt::format("should hold '{}' and '{}', as layers of this architecture rotate in two ways",
                                  of_full_attention, of_windows));
    const auto read_one = [&](const char* name, RopeSettings& rope) {
        if (!both.has(name)) return;
        const ConfigReader scaling = both.object(name);
        read_rotary_dim(scaling, config.head_dim);
        rope = read_scaled_rope(reader, scaling, config, rope);
    };
    read_one(of_full_attention, config.rope);
    read_one(of_windows, config.window_rope);
}

void read_biases(const ConfigReader& reader, ModelConfig& config, bool mlp) {
    config.attention_bias = reader.flag("attention_bias", false);
    if (mlp) config.mlp_bias = reader.flag("mlp_bias", false);
}

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
            dense[layer] = types[layer] == "dense";
            if (!dense[layer] && types[layer] != "sparse")
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

void read_layer_windows(const ConfigReader& reader, ModelConfig& config, const WindowDefaults& defaults) {
    const bool on = !defaults.switched || reader.flag("use_sliding_window", false);
    const bool used = on && !reader.is_null("sliding_window");
    const std::int64_t window = used ? reader.size("sliding_window", largest_vocabulary, 4096) : 0;
    if (const auto sliding = read_layer_types(reader, config)) {
        for (std::size_t layer = 0; layer < sliding->size(); ++layer) {
            if ((*sliding)[layer] && !used)
                reader.refuse("layer_types",
                              fmt::format("has sliding attention in layer {}, but no sliding window is used", layer));
            config.windows[layer] = (*sliding)[layer] ? window : 0;
        }
        return;
    }
    if (!used) return;
    const std::int64_t max_layers = reader.whole("max_window_layers", 0, largest_vocabulary, defaults.max_layers);
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        const bool before = layer < max_layers;
        if (defaults.every_second_before ? before && layer % 2 == 0 : !before)
            config.windows[static_cast<std::size_t>(layer)] = window;
    }
}

void read_window_pattern(const ConfigReader& reader, ModelConfig& config, std::int64_t pattern) {
    const std::int64_t window =
        reader.is_null("sliding_window") ? 0 : reader.size("sliding_window", largest_vocabulary, 4096);
    const auto sliding = read_layer_types(reader, config);
    for (std::size_t layer = 0; layer < config.windows.size(); ++layer) {
        const bool has = sliding ? (*sliding)[layer] : (static_cast<std::int64_t>(layer) + 1) % pattern != 0;
        if (has && window == 0)
            reader.refuse("sliding_window", fmt::format("is null, but layer {} has sliding attention", layer));
        config.windows[layer] = has ? window : 0;
    }
}

ModelConfig read_config(const std::filesystem::path& model_dir) {
    const std::filesystem::path file = model_dir / "config.json";
    const nlohmann::json object = read_json_object(file);
    const ConfigReader reader(object, file.string());
    ModelConfig config;
    config.architecture = read_architecture(reader);
    const FamilyEntry* family = find_family(config.architecture);
    if (family == nullptr)
        reader.refuse("architectures", fmt::format("is '{}', which is not supported; {} are", config.architecture,
                                                   supported_architectures()));
    config.model_type = reader.text("model_type", std::string(family->model_type));
    if (config.model_type != family->model_type && config.model_type != family->other_model_type)
        reader.refuse("model_type", fmt::format("is '{}', but {} goes with '{}'", config.model_type,
                                                config.architecture, family->model_type));
    if (reader.has("quantization_config")) {
        require_blocks_of_floats(reader.object("quantization_config"));
        config.dtype = name_of(DType::bfloat16);
    }
    config.dtype = read_dtype(reader).value_or(config.dtype);
    family->read(reader, config);
    for (const RopeSettings* rope : {&config.rope, &config.window_rope})
        if (rope->type == "longrope")  // a longer sequence has other frequencies, from its start
            config.original_context = static_cast<std::int64_t>(rope->original_max_position_embeddings);
    if (config.original_context > 0) config.max_positions = std::min(config.max_positions, config.original_context);
    return config;
}

}  // namespace fairgptq
