#include "model/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
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
        refuse(field, fmt::format("is {}, outside {} to {}", value.dump(), smallest, largest));
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

Activation read_activation(const ConfigReader& reader, const char* field) {
    const std::string name = reader.text(field);
    if (name == "silu" || name == "swish") return Activation::silu;
    if (name == "relu") return Activation::relu;
    if (name == "gelu") return Activation::gelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
    reader.refuse(
        field, fmt::format("is '{}', an activation that is not supported (silu, relu, gelu and gelu_new are)", name));
}

namespace {

RopeSettings read_rope(const ConfigReader& reader) {
    // transformers 5 keeps all in rope_parameters; 4 had rope_theta beside rope_scaling, whose type was once called
    // "type".
    const char* field = reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    RopeSettings rope;
    rope.theta = reader.number("rope_theta", 1, 1e12, rope.theta);
    if (!reader.has(field)) return rope;
    const ConfigReader scaling = reader.object(field);
    rope.theta = scaling.number("rope_theta", 1, 1e12, rope.theta);
    if (scaling.number("partial_rotary_factor", 0, 1, 1.0) != 1)
        scaling.refuse("partial_rotary_factor", "is not 1: only heads that are rotated whole are supported");
    const char* type_field = scaling.has("rope_type") ? "rope_type" : "type";
    rope.type = scaling.text(type_field, "default");
    if (rope.type == "default") return rope;
    if (rope.type != "linear" && rope.type != "llama3")
        scaling.refuse(
            type_field,
            fmt::format("is '{}', a rope type that is not supported (default, linear and llama3 are)", rope.type));
    rope.factor = scaling.number("factor", 1e-3, 1e6);
    if (rope.type == "linear") return rope;
    rope.low_freq_factor = scaling.number("low_freq_factor", 1e-3, 1e6);
    rope.high_freq_factor = scaling.number("high_freq_factor", 1e-3, 1e6);
    if (rope.high_freq_factor <= rope.low_freq_factor)
        scaling.refuse("high_freq_factor", "should be larger than low_freq_factor");
    rope.original_max_position_embeddings = scaling.number("original_max_position_embeddings", 1, 1e9);
    return rope;
}

std::string read_architecture(const ConfigReader& reader) {
    const nlohmann::json& list = reader.at("architectures");
    if (!list.is_array() || list.size() != 1 || !list.front().is_string())
        reader.refuse("architectures", "should be a list of one name");
    return list.front().get<std::string>();
}

std::string read_dtype(const ConfigReader& reader) {
    const char* field = reader.has("dtype") ? "dtype" : "torch_dtype";
    std::string name = reader.text(field, "float32");
    constexpr std::array<std::string_view, 3> known{"float32", "float16", "bfloat16"};
    if (std::find(known.begin(), known.end(), name) == known.end())
        reader.refuse(field, fmt::format("is '{}' where float32, float16 or bfloat16 is expected", name));
    return name;
}

}  // namespace

void read_llama_like(const ConfigReader& reader, ModelConfig& config, std::optional<std::int64_t> default_head_dim) {
    config.hidden_size = reader.size("hidden_size", largest_width);
    config.intermediate_size = reader.size("intermediate_size", largest_width);
    config.layers = reader.size("num_hidden_layers", largest_count);
    config.heads = reader.size("num_attention_heads", largest_count);
    config.key_value_heads = reader.size("num_key_value_heads", largest_count, config.heads);
    if (config.heads % config.key_value_heads != 0)
        reader.refuse("num_key_value_heads", fmt::format("is {}, which does not divide the {} attention heads",
                                                         config.key_value_heads, config.heads));
    if (!reader.has("head_dim") && !default_head_dim && config.hidden_size % config.heads != 0)
        reader.refuse("num_attention_heads",
                      fmt::format("is {}, which does not divide the hidden size {}", config.heads, config.hidden_size));
    config.head_dim =
        reader.size("head_dim", largest_count, default_head_dim.value_or(config.hidden_size / config.heads));
    if (config.head_dim % 2 != 0)
        reader.refuse("head_dim", fmt::format("is {}: rotary positions need an even one", config.head_dim));
    if (config.heads * config.head_dim > largest_width)
        reader.refuse("head_dim", fmt::format("is {}: {} heads of that size are wider than {}", config.head_dim,
                                              config.heads, largest_width));
    config.vocab_size = reader.size("vocab_size", largest_vocabulary);
    config.max_positions = reader.size("max_position_embeddings", largest_vocabulary);
    config.norm_epsilon = reader.number("rms_norm_eps", 0, 1, 1e-6);
    config.activation = read_activation(reader, "hidden_act");
    config.rope = read_rope(reader);
    config.windows.assign(static_cast<std::size_t>(config.layers), 0);
    config.tied_embeddings = reader.flag("tie_word_embeddings", false);
}

void read_layer_windows(const ConfigReader& reader, ModelConfig& config) {
    const bool used = reader.flag("use_sliding_window", false) && !reader.is_null("sliding_window");
    const std::int64_t window = used ? reader.size("sliding_window", largest_vocabulary, 4096) : 0;
    if (reader.has("layer_types")) {
        const nlohmann::json& types = reader.at("layer_types");
        if (!types.is_array() || types.size() != config.windows.size())
            reader.refuse("layer_types", fmt::format("should be a list of {} names, one a layer", config.layers));
        for (std::size_t layer = 0; layer < types.size(); ++layer) {
            const bool sliding = types[layer] == "sliding_attention";
            if (!sliding && types[layer] != "full_attention")
                reader.refuse("layer_types", fmt::format("has {} for layer {}, an attention that is not supported",
                                                         types[layer].dump(), layer));
            if (sliding && !used)
                reader.refuse("layer_types",
                              fmt::format("has sliding attention in layer {}, but no sliding window is used", layer));
            config.windows[layer] = sliding ? window : 0;
        }
        return;
    }
    if (!used) return;
    const std::int64_t first = reader.whole("max_window_layers", 0, largest_vocabulary, 28);
    for (std::int64_t layer = first; layer < config.layers; ++layer)
        config.windows[static_cast<std::size_t>(layer)] = window;
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
    if (config.model_type != family->model_type)
        reader.refuse("model_type", fmt::format("is '{}', but {} goes with '{}'", config.model_type,
                                                config.architecture, family->model_type));
    if (reader.has("quantization_config"))
        reader.refuse("quantization_config", "is there: the model is quantized already, and its original is needed");
    config.dtype = read_dtype(reader);
    family->read(reader, config);
    return config;
}

}  // namespace fairgptq
