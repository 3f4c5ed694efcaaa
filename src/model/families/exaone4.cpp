// EXAONE 4: OLMo 2's norms behind attention and MLP, Qwen3's of each head of query and key; where layers have windows,
// those without one are not rotated.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_exaone4(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.norm_epsilon = 1e-5});
    if (reader.is_null("sliding_window")) return;
    // Files may name the pattern by letters, but for layer_types.
    const std::int64_t pattern =
        reader.has("layer_types") ? 4 : reader.size("sliding_window_pattern", largest_count, 4);
    read_window_pattern(reader, config, pattern);
    for (std::size_t layer = 0; layer < config.windows.size(); ++layer)
        config.rotary[layer] = config.windows[layer] != 0;
}

Family describe_exaone4(const ModelConfig& config) {
    Family family = describe_olmo(config);
    family.query_norm_of_all_heads = false;
    return family;
}

}  // namespace

const FamilyEntry exaone4_family{"Exaone4ForCausalLM", "exaone4", read_exaone4, describe_exaone4};

}  // namespace fairgptq
