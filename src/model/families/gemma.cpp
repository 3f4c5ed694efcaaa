// Gemma: Llama with norms whose weights are kept less 1, and scaled embeddings.
#include "model/families/gemma.hpp"

#include <cmath>

#include "support/half.hpp"

namespace fairgptq {

void read_gemma(const ConfigReader& reader, ModelConfig& config) {
    read_biases(reader, config, false);
    reader.require_flag("use_bidirectional_attention", false, "only causal attention is supported");
    // As the models were trained: rounded to the weights' type.
    const auto scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
    config.embedding_multiplier = static_cast<double>(round_to(scale, config.weight_type()));
}

void read_query_scale(const ConfigReader& reader, ModelConfig& config) {
    config.attention_multiplier = 1 / std::sqrt(reader.number("query_pre_attn_scalar", 1e-3, 1e6, 256));
}

Family describe_gemma(const ModelConfig& config) {
    Family family = describe_llama_like(config);
    family.norm_offset = 1;
    family.fits_float16 = false;
    return family;
}

Family describe_gemma2(const ModelConfig& config) {
    Family family = describe_gemma(config);
    family.attention_output_norm = "post_attention_layernorm";
    family.mlp_norm = "pre_feedforward_layernorm";
    family.mlp_output_norm = "post_feedforward_layernorm";
    return family;
}

namespace {

void read_gemma1(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 24576,
                     .heads = 16,
                     .key_value_heads = 16,
                     .vocab_size = 256000,
                     .max_positions = 8192,
                     .head_dim = 256,
                     .tied_embeddings = true,
                     .activation = "gelu_pytorch_tanh"});
    // The first files say so and mean the approximation that the models were trained with.
    if (config.activation == Activation::gelu) config.activation = Activation::gelu_tanh;
    read_gemma(reader, config);
}

}  // namespace

const FamilyEntry gemma_family{"GemmaForCausalLM", "gemma", read_gemma1, describe_gemma};

}  // namespace fairgptq
