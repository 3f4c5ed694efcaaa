// Llama 1 to 3, and models that keep its form (SmolLM2, TinyLlama, …).
#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry llama_family{"LlamaForCausalLM", "llama",
                               [](const ConfigReader& reader, ModelConfig& config) {
                                   read_llama_like(reader, config);
                                   read_biases(reader, config, true);
                               },
                               describe_llama_like};

}  // namespace fairgptq
