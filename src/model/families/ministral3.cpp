// Ministral 3: Mistral with yarn, whose queries grow with the position once the original context ends.
#include <algorithm>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_ministral3(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config, {.key_value_heads = 8, .head_dim = 128, .norm_epsilon = 1e-5});
    if (reader.has("sliding_window"))
        std::fill(config.windows.begin(), config.windows.end(), reader.size("sliding_window", largest_vocabulary));
    const ConfigReader rope = reader.object(reader.has("rope_scaling") ? "rope_scaling" : "rope_parameters");
    // Factor 1 + β ln(1 + ⌊position / original context⌋) of queries: 1 within that context.
    if (rope.number("llama_4_scaling_beta", -1e6, 1e6, 0.0) != 0)
        config.original_context =
            rope.size("original_max_position_embeddings", largest_vocabulary, config.max_positions);
}

}  // namespace

const FamilyEntry ministral3_family{"Ministral3ForCausalLM", "ministral3", read_ministral3, describe_llama_like};

}  // namespace fairgptq
