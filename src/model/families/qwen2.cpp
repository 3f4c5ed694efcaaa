// Qwen2 and 2.5: Llama with biases on query, key and value, and windows in some layers where config.json asks for them.
#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry qwen2_family{"Qwen2ForCausalLM", "qwen2",
                               [](const ConfigReader& reader, ModelConfig& config) {
                                   read_llama_like(reader, config);
                                   read_layer_windows(reader, config);
                               },
                               [](const ModelConfig& config) {
                                   Family family = describe_llama_like(config);
                                   for (LinearSpec& linear : family.stages[0].linears)
                                       linear.bias = true;
                                   return family;
                               }};

}  // namespace fairgptq
