// EXAONE 4: OLMo 2's norms behind attention and MLP, Qwen3's of each head of query and key; where layers have windows,
// those without one are not rotated.
#include <nlohmann/json.hpp>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_exaone4(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.norm_epsilon = 1e-5});
    const bool listed = reader.has("layer_types");
    if (reader.is_null("sliding_window") && !listed) return;
    if (!listed && reader.has("sliding_window_pattern") && reader.at("sliding_window_pattern").is_string())
        reader.refuse("sliding_window_pattern",
                      "is in letters: layer_types is needed, which names each layer's attention");
    read_window_pattern(reader, config, listed ? 1 : reader.size("sliding_window_pattern", largest_count, 4));
    if (reader.is_null("sliding_window")) return;
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
