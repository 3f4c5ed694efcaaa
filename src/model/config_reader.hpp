// Typed, checked access to config.json for the family files: every refusal names the file and the field.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.hpp"

namespace fairgptq {

/// A JSON object and what to call it. A field that is null counts as absent, as in transformers.
class ConfigReader {
  public:
    /// @param prefix goes before a field's name in messages: "rope_parameters." for a nested object
    ConfigReader(const nlohmann::json& object, std::string file, std::string prefix = "")
        : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {}

    bool has(const char* field) const;
    bool is_null(const char* field) const;  // there, and null: "none" where absent means a default
    /// A whole number in [smallest, largest]; without a fallback the field must be there.
    std::int64_t whole(const char* field, std::int64_t smallest, std::int64_t largest,
                       std::optional<std::int64_t> fallback = {}) const;
    /// A whole number in [1, largest].
    std::int64_t size(const char* field, std::int64_t largest, std::optional<std::int64_t> fallback = {}) const {
        return whole(field, 1, largest, fallback);
    }
    /// A finite number in [smallest, largest].
    double number(const char* field, double smallest, double largest, std::optional<double> fallback = {}) const;
    bool flag(const char* field, bool fallback) const;
    std::string text(const char* field, std::optional<std::string> fallback = {}) const;
    /// @throws InvalidInput unless `field` is absent or `expected`; `why` ends the sentence
    void require_flag(const char* field, bool expected, const char* why) const;
    ConfigReader object(const char* field) const;
    const nlohmann::json& at(const char* field) const;

    [[noreturn]] void refuse(const char* field, const std::string& what) const;

  private:
    const nlohmann::json& object_;
    std::string file_, prefix_;
};

/// Largest sizes believed, so that no product of them overflows 63 bits.
constexpr std::int64_t largest_width = 1 << 22;
constexpr std::int64_t largest_count = 1 << 16;
constexpr std::int64_t largest_vocabulary = (1LL << 31) - 1;

/// The activation of the field. @throws InvalidInput naming one that is not supported
Activation read_activation(const ConfigReader& reader, const char* field, std::optional<std::string> fallback = {});

/// What weights are quantized with already: 8-bit floats with a factor for each block are as good as an original, and
/// DeepSeek-V3 has no other. @throws InvalidInput where it is anything else
void require_blocks_of_floats(const ConfigReader& quantization);

/// `dtype`, or what transformers 4 called it; nothing where neither is there.
std::optional<std::string> read_dtype(const ConfigReader& reader);

/// Where Llama's relatives differ in what config.json may leave out, and in names.
struct LlamaDefaults {
    std::optional<std::int64_t> intermediate_size = {}, heads = {}, key_value_heads = {}, vocab_size = {},
                                max_positions = {};
    std::optional<std::int64_t> head_dim = {};  // otherwise hidden size / heads
    double rope_theta = 10000;
    double norm_epsilon = 1e-6;
    bool tied_embeddings = false;
    const char* activation_field = "hidden_act";
    std::optional<std::string> activation = {};
    bool rope_of_its_own = false;              // the family reads it
    std::optional<double> rotary_factor = {};  // partial_rotary_factor, which may be less than 1 only where this is set
};
/// What Llama and the families made after it have in common: sizes, rope, RMS norm, gated MLP, full attention.
void read_llama_like(const ConfigReader& reader, ModelConfig& config, const LlamaDefaults& defaults = {});

/// `rope` and `window_rope` of a family that rotates layers with a window otherwise. transformers 5 has an object for
/// each in rope_parameters; 4 had rope_theta and rope_scaling for layers that see everything.
/// @param window_theta_field where 4 had the others' theta; null: in rope_theta
void read_ropes_by_layer_type(const ConfigReader& reader, ModelConfig& config, double theta, double window_theta,
                              const char* window_theta_field);

/// `attention_bias` and, where the family has one, `mlp_bias`, as config.json says.
void read_biases(const ConfigReader& reader, ModelConfig& config, bool mlp);

/// Which layers of a mixture have one MLP instead.
/// @param config its intermediate_size is that of these layers, which goes to dense_intermediate_size
/// @param field that says it, for messages: @throws InvalidInput where no layer has experts
void set_dense_layers(const ConfigReader& reader, const char* field, std::vector<bool> dense, ModelConfig& config);

/// So many experts that every token reaches, side by side as one. @param field that says it, for messages
void read_shared_experts(const ConfigReader& reader, ModelConfig& config, std::int64_t count, const char* field);

struct ExpertFields {
    const char* experts = "num_experts";
    const char* per_token = "num_experts_per_tok";
};
/// How many experts a layer has (`ExpertFields::experts` or `num_local_experts`, one name for the other in
/// transformers), and how many of them a token reaches.
void read_experts(const ConfigReader& reader, ModelConfig& config, std::optional<std::int64_t> experts,
                  std::optional<std::int64_t> per_token, const ExpertFields& fields = {});

/// As set_dense_layers, where every `decoder_sparse_step`-th layer has experts, but for those in `mlp_only_layers`.
void read_dense_layers(const ConfigReader& reader, ModelConfig& config);

struct DeepseekExperts {
    std::optional<std::int64_t> experts = {}, per_token = {}, shared = {};
    std::int64_t dense_layers = 0;
    bool normalized = true;
    RouterScore score = RouterScore::sigmoid;
    std::int64_t groups = 1, groups_per_token = 1;
    std::int64_t width = 1408;  // of one expert
    double scale = 1;           // of experts' weights
};
/// As DeepSeek's models and their relatives have it: experts from layer `first_k_dense_replace` on, in `n_group`
/// groups, and `n_shared_experts` that every token reaches, side by side as one.
/// @param config its intermediate_size is that of the first layers
void read_deepseek_experts(const ConfigReader& reader, ModelConfig& config, const DeepseekExperts& defaults);

struct LatentDefaults {
    std::int64_t query_rank = 1536, unrotated_dim = 128, value_dim = 128;
};
/// `latent`, and the sizes of heads that come with it. @param config has the rope, whose score_factor becomes part of
/// attention_multiplier
void read_latent_attention(const ConfigReader& reader, ModelConfig& config, const LatentDefaults& defaults = {});

/// Of each layer, whether layer_types says `other` of it, not "full_attention"; nothing where there are none.
/// @throws InvalidInput where one is of a third type
std::optional<std::vector<bool>> read_layer_types(const ConfigReader& reader, const ModelConfig& config,
                                                  std::string_view other);

/// Which layers have a window where layer_types does not say it.
struct WindowDefaults {
    bool switched = true;              // none without use_sliding_window
    std::int64_t max_layers = 28;      // max_window_layers
    bool every_second_before = false;  // of so many layers, instead of all behind them
};
/// The window of each layer, as use_sliding_window, sliding_window, layer_types and max_window_layers have it.
void read_layer_windows(const ConfigReader& reader, ModelConfig& config, const WindowDefaults& defaults = {});

/// The window of each layer where every `pattern`-th layer sees everything, unless layer_types says which do.
void read_window_pattern(const ConfigReader& reader, ModelConfig& config, std::int64_t pattern);

}  // namespace fairgptq
