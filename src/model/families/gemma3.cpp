// Gemma 3, the text models: Gemma 2's norms, others of each head of query and key, and a window and a rope of their own
// in five layers of six.
#include "model/families/gemma.hpp"

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
    read_window_pattern(reader, config, reader.size("sliding_window_pattern", largest_count, 6));
    read_ropes_by_layer_type(reader, config, 1e6, 10000, "rope_local_base_freq");
    for (const char* field : {"attn_logit_softcapping", "final_logit_softcapping"})
        if (reader.has(field)) reader.refuse(field, "is there: only Gemma 2's scores and logits are capped");
    read_gemma(reader, config);
    read_query_scale(reader, config);
}

Family describe_gemma3(const ModelConfig& config) {
    Family family = describe_gemma2(config);
    family.query_norm = "self_attn.q_norm";
    family.key_norm = "self_attn.k_norm";
    return family;
}

}  // namespace

const FamilyEntry gemma3_family{"Gemma3ForCausalLM", "gemma3_text", read_gemma3, describe_gemma3};

}  // namespace fairgptq
