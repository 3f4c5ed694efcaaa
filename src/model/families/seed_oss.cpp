// Seed-OSS: Llama with biases on query, key and value, and on attention's output only where config.json asks for it.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

void read_seed_oss(const ConfigReader& reader, ModelConfig& config) {
    LlamaDefaults defaults{.key_value_heads = 8, .head_dim = 128};
    if (reader.is_null("num_key_value_heads")) defaults.key_value_heads.reset();
    if (reader.is_null("head_dim")) defaults.head_dim.reset();
    read_llama_like(reader, config, defaults);
    config.attention_bias = reader.flag("attention_bias", true);
    config.attention_output_bias = reader.flag("attention_out_bias", false);
    config.mlp_bias = reader.flag("mlp_bias", false);
}

}  // namespace

const FamilyEntry seed_oss_family{"SeedOssForCausalLM", "seed_oss", read_seed_oss, describe_llama_like};

}  // namespace fairgptq
