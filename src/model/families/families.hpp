// What each families/NAME.cpp provides, and the list of them in family.cpp.
#pragma once

#include <string>
#include <string_view>

#include "model/config_reader.hpp"
#include "model/family.hpp"

namespace fairgptq {

struct FamilyEntry {
    std::string_view architecture;  // as config.json's "architectures" names it
    std::string_view model_type;
    /// Fills the config from config.json. @throws InvalidInput naming file and field
    void (*read)(const ConfigReader& reader, ModelConfig& config);
    Family (*describe)(const ModelConfig& config);
};

extern const FamilyEntry llama_family;
extern const FamilyEntry mistral_family;
extern const FamilyEntry qwen2_family;
extern const FamilyEntry qwen3_family;
extern const FamilyEntry opt_family;

/// Null if there is none of this architecture.
const FamilyEntry* find_family(std::string_view architecture);
/// Their names, for messages.
std::string supported_architectures();

/// Llama's names and stages, from which its relatives differ in little: which linears have a bias.
struct Biases {
    bool query_key_value = false;
    bool output = false;
    bool mlp = false;
};
Family describe_llama_like(const ModelConfig& config, const Biases& biases);

}  // namespace fairgptq
