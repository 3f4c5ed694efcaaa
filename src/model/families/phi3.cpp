// Phi-3 and Phi-4: Llama whose query, key and value are one linear, and whose gate and up are another. Phi-4-mini
// rotates a part of each head.
#include <algorithm>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_phi3(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.norm_epsilon = 1e-5, .rotary_factor = 1});
    if (config.rope.type != "default" && config.rope.type != "longrope")
        reader.refuse(
            reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling",
            fmt::format("is of the type '{}', where this architecture has default and longrope", config.rope.type));
    if (reader.has("sliding_window"))
        std::fill(config.windows.begin(), config.windows.end(), reader.size("sliding_window", largest_vocabulary));
}

Family describe_phi3(const ModelConfig& config) {
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t wide = config.intermediate_size;
    const std::int64_t query = config.heads * config.head_dim;
    const std::int64_t key = config.key_value_heads * config.head_dim;
    Family family = describe_llama_like(config);
    family.stages[0] = {{{"self_attn.qkv_proj", query + 2 * key, hidden}}};
    family.stages[2] = {{{"mlp.gate_up_proj", 2 * wide, hidden}}};
    return family;
}

}  // namespace

const FamilyEntry phi3_family{"Phi3ForCausalLM", "phi3", read_phi3, describe_phi3};

}  // namespace fairgptq
