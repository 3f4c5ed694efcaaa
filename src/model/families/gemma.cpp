#include "model/families/gemma.hpp"

#include <cmath>

#include "support/half.hpp"

namespace fairgptq {

void read_gemma(const ConfigReader& reader, ModelConfig& config) {
    read_biases(reader, config, false);
    reader.require_flag("use_bidirectional_attention", false, "only causal attention is supported");
    config.attention_multiplier = 1 / std::sqrt(reader.number("query_pre_attn_scalar", 1e-3, 1e6, 256));
    // As the models were trained: rounded to the weights' type.
    const auto scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
    config.embedding_multiplier = static_cast<double>(round_to(scale, config.weight_type()));
}

Family describe_gemma(const ModelConfig& config) {
    Family family = describe_llama_like(config);
    family.attention_output_norm = "post_attention_layernorm";
    family.mlp_norm = "pre_feedforward_layernorm";
    family.mlp_output_norm = "post_feedforward_layernorm";
    family.norm_offset = 1;
    family.fits_float16 = false;
    return family;
}

}  // namespace fairgptq
