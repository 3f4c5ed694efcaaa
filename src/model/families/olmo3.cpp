// OLMo 3: OLMo 2 with a window in three layers of four, whose rope is not scaled.
#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry olmo3_family{"Olmo3ForCausalLM", "olmo3",
                               [](const ConfigReader& reader, ModelConfig& config) {
                                   read_llama_like(reader, config, {.norm_epsilon = 1e-5, .rope_of_its_own = true});
                                   read_biases(reader, config, false);
                                   read_window_pattern(reader, config, 4);
                                   read_ropes_by_layer_type(reader, config, 500000, 500000, nullptr);
                               },
                               describe_olmo};

}  // namespace fairgptq
