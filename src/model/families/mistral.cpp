// Mistral: Llama with the same sliding window in every layer.
#include <algorithm>

#include "model/families/families.hpp"

namespace fairgptq {

const FamilyEntry mistral_family{"MistralForCausalLM", "mistral",
                                 [](const ConfigReader& reader, ModelConfig& config) {
                                     read_llama_like(reader, config, {.key_value_heads = 8});
                                     if (!reader.is_null("sliding_window"))
                                         std::fill(config.windows.begin(), config.windows.end(),
                                                   reader.size("sliding_window", largest_vocabulary, 4096));
                                 },
                                 describe_llama_like};

}  // namespace fairgptq
