// Gemma 3, the text models: Llama with norms before and behind attention and MLP, whose weights are kept less 1, scaled
// embeddings, and a window and a rope of their own in five layers of six.
#include <cmath>

#include "model/families/families.hpp"
#include "support/half.hpp"

namespace fairgptq {
namespace {

void read_gemma3(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.heads = 8,
                     .key_value_heads = 4,
                     .vocab_size = 262208,
                     .max_positions = 131072,
                     .head_dim = 256,
                     .tied_embeddings = true,
                     .activation_field = "hidden_activation",
                     .activation = "gelu_pytorch_tanh",
                     .rope_of_its_own = true});
    read_biases(reader, config, false);
    read_window_pattern(reader, config, reader.size("sliding_window_pattern", largest_count, 6));
    read_ropes_by_layer_type(reader, config, 1e6, 10000, "rope_local_base_freq");
    for (const char* field : {"attn_logit_softcapping", "final_logit_softcapping"})
        if (reader.has(field))
            reader.refuse(field, "is there: Gemma 2's capping of scores and logits is not supported");
    reader.require_flag("use_bidirectional_attention", false, "only causal attention is supported");
    config.attention_multiplier = 1 / std::sqrt(reader.number("query_pre_attn_scalar", 1e-3, 1e6, 256));
    // As the models were trained: rounded to the weights' type.
    const auto scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
    config.embedding_multiplier = static_cast<double>(round_to(scale, config.weight_type()));
}

Family describe_gemma3(const ModelConfig& config) {
    Family family = describe_llama_like(config);
    family.attention_output_norm = "post_attention_layernorm";
    family.mlp_norm = "pre_feedforward_layernorm";
    family.mlp_output_norm = "post_feedforward_layernorm";
    family.query_norm = "self_attn.q_norm";
    family.key_norm = "self_attn.k_norm";
    family.norm_offset = 1;
    family.fits_float16 = false;
    return family;
}

}  // namespace

const FamilyEntry gemma3_family{"Gemma3ForCausalLM", "gemma3_text", read_gemma3, describe_gemma3};

}  // namespace fairgptq
