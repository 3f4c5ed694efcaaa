// OPT: learned positions (the table has two rows more than positions), LayerNorm, biases everywhere, a plain two-layer
// MLP.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

constexpr std::int64_t position_offset = 2;

void read_opt(const ConfigReader& reader, ModelConfig& config) {
    config.hidden_size = reader.size("hidden_size", largest_width);
    config.intermediate_size = reader.size("ffn_dim", largest_width);
    config.layers = reader.size("num_hidden_layers", largest_count);
    config.heads = config.key_value_heads = reader.size("num_attention_heads", largest_count);
    if (config.hidden_size % config.heads != 0)
        reader.refuse("num_attention_heads",
                      fmt::format("is {}, which does not divide the hidden size {}", config.heads, config.hidden_size));
    config.head_dim = config.hidden_size / config.heads;
    config.vocab_size = reader.size("vocab_size", largest_vocabulary);
    config.max_positions = reader.size("max_position_embeddings", largest_vocabulary);
    config.norm_epsilon = 1e-5;  // fixed: the config has no field for it
    config.activation = read_activation(reader, "activation_function");
    config.windows.assign(static_cast<std::size_t>(config.layers), 0);
    config.rotary.assign(config.windows.size(), false);
    config.tied_embeddings = reader.flag("tie_word_embeddings", true);
    config.attention_bias = config.mlp_bias = reader.flag("enable_bias", true);
    reader.require_flag("do_layer_norm_before", true,
                        "models that normalize after each block, as OPT-350m, are not supported");
    reader.require_flag("layer_norm_elementwise_affine", true, "norms without weights are not supported");
    reader.require_flag("_remove_final_layer_norm", false, "models without a final norm are not supported");
    if (reader.size("word_embed_proj_dim", largest_width, config.hidden_size) != config.hidden_size)
        reader.refuse("word_embed_proj_dim",
                      fmt::format("differs from the hidden size {}: embeddings that are projected are not supported",
                                  config.hidden_size));
}

Family describe_opt(const ModelConfig& config) {
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t wide = config.intermediate_size;
    const bool bias = config.attention_bias;
    Family family;
    family.config = config;
    family.layer_prefix = "model.decoder.layers.{}.";
    family.embedding = "model.decoder.embed_tokens.weight";
    family.positions = "model.decoder.embed_positions.weight";
    family.position_offset = position_offset;
    family.final_norm = "model.decoder.final_layer_norm";
    family.lm_head = config.tied_embeddings ? family.embedding : "lm_head.weight";
    family.input_norm = "self_attn_layer_norm";
    family.mlp_norm = "final_layer_norm";
    family.norm = NormKind::layer;
    family.gated = false;
    family.stages = {
        {{{"self_attn.q_proj", hidden, hidden, bias},
          {"self_attn.k_proj", hidden, hidden, bias},
          {"self_attn.v_proj", hidden, hidden, bias}}},
        {{{"self_attn.out_proj", hidden, hidden, bias}}},
        {{{"fc1", wide, hidden, bias}}},
        {{{"fc2", hidden, wide, bias}}},
    };
    return family;
}

}  // namespace

const FamilyEntry opt_family{"OPTForCausalLM", "opt", read_opt, describe_opt};

}  // namespace fairgptq
