// Granite 3: Llama with multipliers of embeddings, attention scores, what blocks add, and logits.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_granite(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config);
    read_biases(reader, config, true);
    const auto multiplier = [&](const char* field) { return reader.number(field, 1e-6, 1e6, 1.0); };
    config.embedding_multiplier = multiplier("embedding_multiplier");
    config.residual_multiplier = multiplier("residual_multiplier");
    config.attention_multiplier = multiplier("attention_multiplier");
    config.logits_scaling = multiplier("logits_scaling");
}

}  // namespace

const FamilyEntry granite_family{"GraniteForCausalLM", "granite", read_granite, describe_llama_like};

}  // namespace fairgptq
