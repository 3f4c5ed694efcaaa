// DeepSeek-V2 (Lite, too), and DeepSeek-V3 with R1, Moonlight and Kimi-K2: attention by latents; experts in groups, the
// second's chosen by their sigmoids; Youtu-LLM has the attention alone. Of DeepSeek-V2's experts the weights are parts
// of the softmax over all, and do not sum to 1.
#include "model/families/families.hpp"

namespace fairgptq {
namespace {

/// What stands for the size of a head in config.json is the part of it that turns.
constexpr std::int64_t turning = 64;

void read_deepseek_v2(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 11008,
                     .heads = 32,
                     .vocab_size = 102400,
                     .max_positions = 2048,
                     .head_dim = turning,
                     .activation = "silu"});
    read_latent_attention(reader, config);
    config.rotary_pairs = RotaryPairs::neighbours;
    reader.require_flag("mlp_bias", false, "biases of the MLP are not supported");
    const std::string method = reader.text("topk_method", "greedy");
    if (method != "greedy" && method != "group_limited_greedy")
        reader.refuse("topk_method", "is '" + method + "', where 'greedy' and 'group_limited_greedy' are supported");
    read_deepseek_experts(
        reader, config,
        {.experts = 64, .shared = 2, .normalized = false, .score = RouterScore::softmax, .width = 1407});
    if (config.normalized_routing)
        reader.refuse("norm_topk_prob", "is true: programs disagree about what that means for this architecture");
    if (method == "greedy") config.expert_groups = config.groups_per_token = 1;
}

void read_deepseek_v3(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 18432,
                     .heads = 128,
                     .vocab_size = 129280,
                     .max_positions = 4096,
                     .head_dim = turning,
                     .activation = "silu"});
    read_latent_attention(reader, config);
    read_deepseek_experts(reader, config,
                          {.experts = 256,
                           .per_token = 8,
                           .shared = 1,
                           .dense_layers = 3,
                           .groups = 8,
                           .groups_per_token = 4,
                           .width = 2048,
                           .scale = 2.5});
}

void read_youtu(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 6144,
                     .heads = 16,
                     .vocab_size = 128256,
                     .max_positions = 131072,
                     .head_dim = turning,
                     .tied_embeddings = true,
                     .activation = "silu"});
    read_latent_attention(reader, config);
}

/// GLM-4.7-Flash: GLM-4.5's experts behind DeepSeek's attention.
void read_glm4_moe_lite(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 10240,
                     .heads = 20,
                     .vocab_size = 154880,
                     .max_positions = 202752,
                     .head_dim = turning,
                     .norm_epsilon = 1e-5,
                     .activation = "silu"});
    read_latent_attention(reader, config, {.query_rank = 768, .unrotated_dim = 192, .value_dim = 256});
    read_deepseek_experts(reader, config,
                          {.experts = 64, .per_token = 4, .shared = 1, .dense_layers = 1, .width = 1536, .scale = 1.8});
}

Family describe_mixture_of_latents(const ModelConfig& config) {
    Family family = describe_mixture(config, "mlp");
    use_latent_attention(family);
    if (config.router_score == RouterScore::sigmoid) family.router_bias = "mlp.gate.e_score_correction_bias";
    return family;
}

Family describe_deepseek(const ModelConfig& config) {
    Family family = describe_mixture_of_latents(config);
    family.fits_float16 = false;  // vLLM scales hidden states down for it
    return family;
}

}  // namespace

const FamilyEntry deepseek_v2_family{"DeepseekV2ForCausalLM", "deepseek_v2", read_deepseek_v2, describe_deepseek};
const FamilyEntry deepseek_v3_family{"DeepseekV3ForCausalLM", "deepseek_v3", read_deepseek_v3, describe_deepseek,
                                     "kimi_k2"};
const FamilyEntry glm4_moe_lite_family{"Glm4MoeLiteForCausalLM", "glm4_moe_lite", read_glm4_moe_lite,
                                       describe_mixture_of_latents};
const FamilyEntry youtu_family{"YoutuForCausalLM", "youtu", read_youtu,
                               [](const ModelConfig& config) {
                                   Family family = describe_llama_like(config);
                                   use_latent_attention(family);
                                   return family;
                               },
                               "youtu_llm"};

}  // namespace fairgptq
