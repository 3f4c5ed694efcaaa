// SmolLM3: Llama, of which some layers (every fourth) are not rotated.
#include <nlohmann/json.hpp>

#include "model/families/families.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

void read_rotated_layers(const ConfigReader& reader, ModelConfig& config) {
    if (!reader.has("no_rope_layers")) {
        const std::int64_t interval = reader.size("no_rope_layer_interval", largest_count, 4);
        for (std::size_t layer = 0; layer < config.rotary.size(); ++layer)
            config.rotary[layer] = (static_cast<std::int64_t>(layer) + 1) % interval != 0;
        return;
    }
    const nlohmann::json& rotated = reader.at("no_rope_layers");
    if (!rotated.is_array() || rotated.size() < config.rotary.size())
        reader.refuse("no_rope_layers",
                      fmt::format("should be a list of {} ones and zeros, one a layer", config.layers));
    for (std::size_t layer = 0; layer < config.rotary.size(); ++layer) {
        if (rotated[layer] != 0 && rotated[layer] != 1)
            reader.refuse("no_rope_layers", fmt::format("has {} for layer {}, where 1 (rotated) and 0 are possible",
                                                        json_text(rotated[layer]), layer));
        config.rotary[layer] = rotated[layer] == 1;
    }
}

void read_smollm3(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.rope_theta = 2e6, .tied_embeddings = true});
    read_biases(reader, config, true);
    read_rotated_layers(reader, config);
    if (reader.has("layer_types")) return read_layer_windows(reader, config);
    if (!reader.flag("use_sliding_window", false) || !reader.has("sliding_window")) return;
    const std::int64_t window = reader.size("sliding_window", largest_vocabulary);
    for (std::size_t layer = 0; layer < config.rotary.size(); ++layer)
        if (!config.rotary[layer]) config.windows[layer] = window;
}

}  // namespace

const FamilyEntry smollm3_family{"SmolLM3ForCausalLM", "smollm3", read_smollm3, describe_llama_like};

}  // namespace fairgptq
