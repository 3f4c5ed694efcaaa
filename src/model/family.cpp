#include "model/family.hpp"

#include <algorithm>
#include <array>

#include "model/families/families.hpp"
#include "model/safetensors.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {
const std::array families{&llama_family,
                          &mistral_family,
                          &ministral3_family,
                          &qwen2_family,
                          &qwen3_family,
                          &smollm3_family,
                          &granite_family,
                          &phi3_family,
                          &olmo2_family,
                          &olmo3_family,
                          &gemma_family,
                          &gemma2_family,
                          &gemma3_family,
                          &opt_family,
                          &mixtral_family,
                          &qwen3_moe_family,
                          &olmoe_family,
                          &qwen2_moe_family,
                          &glm4_moe_family,
                          &dots1_family,
                          &minimax_m2_family,
                          &deepseek_v2_family,
                          &deepseek_v3_family,
                          &glm4_moe_lite_family,
                          &youtu_family,
                          &ernie_moe_family,
                          &ernie_family,
                          &glm_family,
                          &glm4_family,
                          &exaone4_family,
                          &seed_oss_family,
                          &qwen3_next_family,
                          &qwen3_5_family,
                          &qwen3_5_moe_family,
                          &lfm2_family,
                          &gemma3_with_pictures,
                          &mistral3_with_pictures,
                          &qwen2_with_pictures,
                          &qwen25_with_pictures,
                          &qwen3_with_pictures,
                          &qwen3_5_with_pictures,
                          &qwen3_5_moe_with_pictures};
}  // namespace

const FamilyEntry* find_family(std::string_view architecture) {
    const auto* const found = std::find_if(families.begin(), families.end(), [&](const FamilyEntry* family) {
        return family->architecture == architecture;
    });
    return found == families.end() ? nullptr : *found;
}

std::string supported_architectures() {
    std::string list;
    for (const FamilyEntry* family : families)
        list += (list.empty() ? "" : ", ") + std::string(family->architecture);
    return list;
}

std::string Family::layer(std::int64_t index) const {
    const bool further = index >= config.layers && !further_prefix.empty();
    std::string prefix = further ? further_prefix : layer_prefix;
    return prefix.replace(prefix.find("{}"), 2, std::to_string(further ? index - config.layers : index));
}

std::vector<std::int64_t> Family::kinds_of_layers() const {
    std::vector<std::int64_t> kinds;
    for (std::int64_t layer = 0; layer < config.layers; ++layer)
        if (std::ranges::none_of(kinds, [&](std::int64_t kind) { return &stages_of(kind) == &stages_of(layer); }))
            kinds.push_back(layer);
    return kinds;
}

std::vector<std::string> Family::kept_linears() const {
    std::vector<std::string> names;
    for (const std::string& name : {router, shared_gate})
        if (!name.empty()) names.push_back(name);
    if (config.has_delta())
        for (const std::string& name : {recurrent.beta, recurrent.decay_gate})
            if (!name.empty()) names.push_back(name);
    return names;
}

std::string Family::loaded_name(const std::string& stored_name) const {
    for (const Prefix& prefix : prefixes)
        if (stored_name.starts_with(prefix.stored)) return prefix.loaded + stored_name.substr(prefix.stored.size());
    return stored_name;
}

Family describe_family(const ModelConfig& config) {
    const FamilyEntry* family = find_family(config.architecture);
    if (family == nullptr)
        throw InvalidInput("the architecture '{}' is not supported; {} are", config.architecture,
                           supported_architectures());
    return family->describe(config);
}

Family read_family(const std::filesystem::path& model_dir) {
    ModelConfig config = read_config(model_dir);
    Family family = describe_family(config);
    if ((family.prefixes.empty() && !config.may_be_tied && family.otherwise.empty()) || !Checkpoint::is_in(model_dir))
        return family;
    const Checkpoint checkpoint(model_dir);
    const bool as_loaded = !checkpoint.has(family.embedding) && checkpoint.has(family.loaded_name(family.embedding));
    if (config.may_be_tied) {
        config.tied_embeddings = !checkpoint.has(as_loaded ? family.loaded_name(family.lm_head) : family.lm_head);
        family = describe_family(config);
    }
    if (as_loaded) {
        for (std::string* name : {&family.layer_prefix, &family.embedding, &family.final_norm, &family.lm_head})
            *name = family.loaded_name(*name);
        family.prefixes.clear();
    }
    if (!family.otherwise.empty() && !checkpoint.has(family.embedding)) {
        Family renamed = put_within(family, family.otherwise, family.lm_head);
        if (checkpoint.has(renamed.embedding)) family = std::move(renamed);
    }
    return family;
}

Family put_within(Family family, const std::string& prefix, const std::string& head) {
    for (std::string* name : {&family.layer_prefix, &family.embedding, &family.final_norm})
        *name = prefix + name->substr(std::string_view("model.").size());
    family.lm_head = family.config.tied_embeddings ? family.embedding : head;
    family.within_another = true;
    family.otherwise.clear();
    return family;
}

std::int64_t Family::query_norm_size() const {
    if (config.has_latent()) return config.latent.query_rank;
    return config.head_dim * (query_norm_of_all_heads ? config.heads : 1);
}

std::int64_t Family::key_norm_size() const {
    if (config.has_latent()) return config.latent.key_value_rank;
    return config.head_dim * (query_norm_of_all_heads ? config.key_value_heads : 1);
}

std::string kind_of_linear(const std::string& name) {
    constexpr std::string_view experts = ".experts.";
    const std::size_t at = name.find(experts);
    if (at == std::string::npos) return name;
    const std::size_t number = at + experts.size();
    return name.substr(0, number) + "*" + name.substr(name.find('.', number));
}

Family describe_llama_like(const ModelConfig& config) {
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t wide = config.intermediate_size;
    const std::int64_t query = config.heads * config.head_dim;
    const std::int64_t key = config.key_value_heads * config.head_dim;
    Family family;
    family.config = config;
    family.layer_prefix = "model.layers.{}.";
    family.embedding = "model.embed_tokens.weight";
    family.final_norm = "model.norm";
    family.lm_head = config.tied_embeddings ? family.embedding : "lm_head.weight";
    family.input_norm = "input_layernorm";
    family.mlp_norm = "post_attention_layernorm";
    family.stages = {
        {{{"self_attn.q_proj", query, hidden, config.attention_bias},
          {"self_attn.k_proj", key, hidden, config.attention_bias},
          {"self_attn.v_proj", key, hidden, config.attention_bias}}},
        {{{"self_attn.o_proj", hidden, query, config.attention_output_bias.value_or(config.attention_bias)}}},
        {{{"mlp.gate_proj", wide, hidden, config.mlp_bias}, {"mlp.up_proj", wide, hidden, config.mlp_bias}}},
        {{{"mlp.down_proj", hidden, wide, config.mlp_bias}}},
    };
    return family;
}

void use_latent_attention(Family& family) {
    const ModelConfig& config = family.config;
    const LatentAttention& latent = config.latent;
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = config.heads * config.head_dim;
    const bool bias = config.attention_bias;
    const LinearSpec compress{"self_attn.kv_a_proj_with_mqa", latent.key_value_rank + config.rotary_dim, hidden, bias};
    std::vector<StageSpec> attention;
    if (latent.query_rank > 0) {
        attention = {{{{"self_attn.q_a_proj", latent.query_rank, hidden, bias}, compress}},
                     {{{"self_attn.q_b_proj", query, latent.query_rank}}}};
        family.query_norm = "self_attn.q_a_layernorm";
    } else {
        attention = {{{{"self_attn.q_proj", query, hidden}, compress}}};
    }
    family.key_norm = "self_attn.kv_a_layernorm";
    attention.push_back({{{"self_attn.kv_b_proj", config.heads * (config.unrotated_dim() + config.value_size()),
                           latent.key_value_rank}}});
    attention.push_back({{{"self_attn.o_proj", hidden, config.heads * config.value_size(), bias}}});
    for (std::vector<StageSpec>* stages : {&family.stages, &family.dense_stages}) {
        if (stages->empty()) continue;
        stages->erase(stages->begin(), stages->begin() + family.attention_stages);
        stages->insert(stages->begin(), attention.begin(), attention.end());
    }
    family.attention_stages = static_cast<int>(attention.size());
}

Family describe_mixture(const ModelConfig& config, const std::string& block, const ExpertNames& names) {
    const std::int64_t hidden = config.hidden_size;
    Family family = describe_llama_like(config);
    family.router = block + ".gate";
    if (!config.dense.empty()) {
        ModelConfig dense = config;
        dense.intermediate_size = config.dense_intermediate_size;
        family.dense_stages = describe_llama_like(dense).stages;
    }
    family.stages.resize(2);
    const auto add = [&](const std::string& prefix, std::int64_t wide, std::int64_t expert, bool shared) {
        family.stages.push_back(
            {{{prefix + names.gate, wide, hidden}, {prefix + names.up, wide, hidden}}, expert, shared});
        family.stages.push_back({{{prefix + names.down, hidden, wide}}, expert, shared});
    };
    for (std::int64_t expert = 0; expert < config.experts; ++expert)
        add(fmt::format("{}.experts.{}.", block, expert), config.intermediate_size, expert, false);
    if (config.shared_intermediate_size > 0)
        add(fmt::format("{}.{}.", block, names.shared), config.shared_intermediate_size, config.experts, true);
    return family;
}

}  // namespace fairgptq
