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
    std::string_view other_model_type = {};  // of the same models from elsewhere
};

extern const FamilyEntry llama_family;
extern const FamilyEntry mistral_family;
extern const FamilyEntry qwen2_family;
extern const FamilyEntry qwen3_family;
extern const FamilyEntry opt_family;
extern const FamilyEntry smollm3_family;
extern const FamilyEntry granite_family;
extern const FamilyEntry phi3_family;
extern const FamilyEntry olmo2_family;
extern const FamilyEntry olmo3_family;
extern const FamilyEntry gemma_family;
extern const FamilyEntry gemma2_family;
extern const FamilyEntry gemma3_family;
extern const FamilyEntry ministral3_family;
extern const FamilyEntry exaone4_family;
extern const FamilyEntry seed_oss_family;
extern const FamilyEntry mixtral_family;
extern const FamilyEntry qwen3_moe_family;
extern const FamilyEntry olmoe_family;
extern const FamilyEntry qwen2_moe_family;
extern const FamilyEntry glm4_moe_family;
extern const FamilyEntry dots1_family;
extern const FamilyEntry minimax_m2_family;
extern const FamilyEntry deepseek_v2_family;
extern const FamilyEntry deepseek_v3_family;
extern const FamilyEntry glm4_moe_lite_family;
extern const FamilyEntry youtu_family;
extern const FamilyEntry ernie_moe_family;
extern const FamilyEntry ernie_family;
extern const FamilyEntry glm_family;
extern const FamilyEntry glm4_family;
extern const FamilyEntry qwen3_5_family;
extern const FamilyEntry qwen3_5_moe_family;
extern const FamilyEntry qwen3_next_family;
extern const FamilyEntry lfm2_family;
// Text models of these families within models that take pictures, too.
extern const FamilyEntry gemma3_with_pictures;
extern const FamilyEntry mistral3_with_pictures;
extern const FamilyEntry qwen2_with_pictures;
extern const FamilyEntry qwen25_with_pictures;
extern const FamilyEntry qwen3_with_pictures;
extern const FamilyEntry qwen3_5_with_pictures;
extern const FamilyEntry qwen3_5_moe_with_pictures;

/// Null if there is none of this architecture.
const FamilyEntry* find_family(std::string_view architecture);
/// Their names, for messages.
std::string supported_architectures();

/// Llama's names and stages, from which its relatives differ in little, with the biases that the config asks for.
Family describe_llama_like(const ModelConfig& config);

/// Linears of an expert, below its prefix.
struct ExpertNames {
    std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
    std::string shared = "shared_experts";  // what the shared one is called below the block
};
/// As describe_llama_like, with a mixture of experts in the MLP's place.
/// @param block below the layer's prefix: "mlp", with the router "mlp.gate" and the experts "mlp.experts.0.gate_proj",
/// …
Family describe_mixture(const ModelConfig& config, const std::string& block, const ExpertNames& names = {});

/// The config's latent attention in the place of what the family has: {q_a or q, kv_a} → {q_b}, if there is one →
/// {kv_b} → {o}.
void use_latent_attention(Family& family);

/// A text model's family, with the names that it has within another model.
/// @param prefix what stands before its tensors' names instead of "model."
/// @param head the name of a head of its own
Family put_within(Family family, const std::string& prefix, const std::string& head);

/// OLMo 2's: norms behind attention and MLP instead of before them, and of query and key as a whole.
Family describe_olmo(const ModelConfig& config);

}  // namespace fairgptq
