// Gemma 2: Gemma with norms before and behind attention and MLP, a window in every other layer, and scores and logits
// that are capped.
#include "model/families/gemma.hpp"

namespace fairgptq {
namespace {

/// Null: none; absent: the default.
double read_cap(const ConfigReader& reader, const char* field, double usual) {
    return reader.is_null(field) ? 0 : reader.number(field, 1e-3, 1e6, usual);
}

void read_gemma2(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.heads = 8,
                     .key_value_heads = 4,
                     .vocab_size = 256000,
                     .max_positions = 8192,
                     .head_dim = 256,
                     .tied_embeddings = true,
                     .activation_field = "hidden_activation",
                     .activation = "gelu_pytorch_tanh"});
    read_window_pattern(reader, config, 2);
    read_gemma(reader, config);
    read_query_scale(reader, config);
    config.attention_cap = read_cap(reader, "attn_logit_softcapping", 50);
    config.logits_cap = read_cap(reader, "final_logit_softcapping", 30);
}

}  // namespace

const FamilyEntry gemma2_family{"Gemma2ForCausalLM", "gemma2", read_gemma2, describe_gemma2};

}  // namespace fairgptq
