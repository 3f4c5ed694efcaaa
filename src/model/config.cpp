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

std::string read_architecture(const ConfigReader& reader) {
    const nlohmann::json& list = reader.at("architectures");
    if (!list.is_array() || list.size() != 1 || !list.front().is_string())
        reader.refuse("architectures", "should be a list of one name");
    return list.front().get<std::string>();
}

}  // namespace

std::optional<std::vector<bool>> read_layer_types(const ConfigReader& reader, const ModelConfig& config,
                                                  std::string_view other) {
    if (!reader.has("layer_types")) return {};
    const nlohmann::json& types = reader.at("layer_types");
    if (!types.is_array() || std::ssize(types) != config.layers)
        reader.refuse("layer_types", fmt::format("should be a list of {} names, one a layer", config.layers));
    std::vector<bool> found;
    for (const nlohmann::json& type : types) {
        const std::string name = type.is_string() ? type.get<std::string>() : "";
        if (name != other && name != of_full_attention)
            reader.refuse("layer_types",
                          fmt::format("has {} for layer {}, which is not supported", json_text(type), found.size()));
        found.push_back(name == other);
    }
    return found;
}

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

void read_layer_windows(const ConfigReader& reader, ModelConfig& config, const WindowDefaults& defaults) {
    const bool on = !defaults.switched || reader.flag("use_sliding_window", false);
    const bool used = on && !reader.is_null("sliding_window");
    const std::int64_t window = used ? reader.size("sliding_window", largest_vocabulary, 4096) : 0;
    if (const auto sliding = read_layer_types(reader, config, of_windows)) {
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
    const auto sliding = read_layer_types(reader, config, of_windows);
    for (std::size_t layer = 0; layer < config.windows.size(); ++layer) {
        const bool has = sliding ? (*sliding)[layer] : (static_cast<std::int64_t>(layer) + 1) % pattern != 0;
        if (has && window == 0)
            reader.refuse("sliding_window", fmt::format("is null, but layer {} has sliding attention", layer));
        config.windows[layer] = has ? window : 0;
    }
}

ModelConfig read_config(const std::filesystem::path& model_dir) {
    const std::filesystem::path file = model_dir / "config.json";
    if (std::error_code ignored; !std::filesystem::exists(model_dir, ignored))
        throw InvalidInput("{}/config.json is missing: give the folder of a model (`hf download` makes one)",
                           model_dir.string());
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
