// Qwen3.5 and Qwen3-Next, dense and with experts: three of four layers have linear attention (Gated DeltaNet), the
// others a gate on what each head gathers.
#include <utility>

#include "model/families/families.hpp"

namespace fairgptq {
namespace {

/// Which layers have linear attention: layer_types, or all but every full_attention_interval-th.
void read_linear_layers(const ConfigReader& reader, ModelConfig& config) {
    if (auto types = read_layer_types(reader, config, "linear_attention")) {
        config.recurrent = std::move(*types);
        return;
    }
    const std::int64_t interval = reader.size("full_attention_interval", largest_count, 4);
    for (std::int64_t layer = 1; layer <= config.layers; ++layer)
        config.recurrent.push_back(layer % interval != 0);
}

void read_delta(const ConfigReader& reader, ModelConfig& config) {
    constexpr std::int64_t widest_convolution = 64;
    DeltaShape& shape = config.delta;
    shape.key_heads = reader.size("linear_num_key_heads", largest_count, 16);
    shape.value_heads = reader.size("linear_num_value_heads", largest_count, 32);
    if (shape.value_heads % shape.key_heads != 0)
        reader.refuse("linear_num_key_heads", fmt::format("is {}, which does not divide the {} heads of values",
                                                          shape.key_heads, shape.value_heads));
    shape.key_dim = reader.size("linear_key_head_dim", DeltaShape::widest_key, 128);
    shape.value_dim = reader.size("linear_value_head_dim", largest_count, 128);
    if (shape.mixed_cols() > largest_width)
        reader.refuse("linear_value_head_dim", fmt::format("is {}: {} heads of that size are wider than {}",
                                                           shape.value_dim, shape.value_heads, largest_width));
    config.convolution_width = reader.size("linear_conv_kernel_dim", widest_convolution, 4);
    if (config.activation != Activation::silu)
        reader.refuse("hidden_act", "is not 'silu', with which this architecture's convolutions are computed here");
}

void read_attention(const ConfigReader& reader, ModelConfig& config) {
    read_biases(reader, config, false);
    reader.require_flag("attn_output_gate", true, "attention without an output gate is not supported here");
    config.gated_attention = true;
    read_linear_layers(reader, config);
    read_delta(reader, config);
}

LlamaDefaults usual_defaults(std::int64_t vocab_size, std::int64_t key_value_heads) {
    return {.heads = 16,
            .key_value_heads = key_value_heads,
            .vocab_size = vocab_size,
            .max_positions = 32768,
            .head_dim = 256,
            .activation = "silu",
            .rotary_factor = 0.25};
}

void read_qwen3_5(const ConfigReader& reader, ModelConfig& config) {
    LlamaDefaults usual = usual_defaults(248320, 4);
    usual.intermediate_size = 12288;
    read_llama_like(reader, config, usual);
    read_attention(reader, config);
}

void read_mixture(const ConfigReader& reader, ModelConfig& config, std::int64_t experts, std::int64_t per_token) {
    config.intermediate_size = reader.size("moe_intermediate_size", largest_width, 512);
    config.shared_intermediate_size = reader.size("shared_expert_intermediate_size", largest_width, 512);
    read_experts(reader, config, experts, per_token);
}

void read_qwen3_5_moe(const ConfigReader& reader, ModelConfig& config) {
    LlamaDefaults usual = usual_defaults(248320, 2);
    usual.intermediate_size = 512;  // no layer has one MLP
    read_llama_like(reader, config, usual);
    read_attention(reader, config);
    read_mixture(reader, config, 256, 8);
}

void read_qwen3_next(const ConfigReader& reader, ModelConfig& config) {
    LlamaDefaults usual = usual_defaults(151936, 2);
    usual.intermediate_size = 5632;
    read_llama_like(reader, config, usual);
    read_attention(reader, config);
    read_dense_layers(reader, config);
    if (!config.dense.empty())
        reader.refuse(
            reader.whole("decoder_sparse_step", 0, largest_count, 1) != 1 ? "decoder_sparse_step" : "mlp_only_layers",
            "makes layers without experts, which are not supported beside linear attention");
    read_mixture(reader, config, 512, 10);
    config.normalized_routing = reader.flag("norm_topk_prob", true);
}

/// The stages of layers with linear attention, from those of the others, and what both kinds have in common.
Family with_linear_attention(Family family) {
    const ModelConfig& config = family.config;
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = config.heads * config.head_dim;
    family.norm_offset = 1;
    family.query_norm = "self_attn.q_norm";
    family.key_norm = "self_attn.k_norm";
    family.stages.front().linears.front().rows = 2 * query;  // a gate behind each head's
    family.recurrent_stages = family.stages;
    family.recurrent_stages[0] = {{{"linear_attn.in_proj_qkv", config.delta.mixed_cols(), hidden},
                                   {"linear_attn.in_proj_z", config.delta.value_cols(), hidden}}};
    family.recurrent_stages[1] = {{{"linear_attn.out_proj", hidden, config.delta.value_cols()}}};
    family.otherwise = "model.language_model.";
    family.other_parts = {"mtp"};  // a layer that predicts further tokens
    return family;
}

Family describe_qwen3_5_moe(const ModelConfig& config) {
    Family family = describe_mixture(config, "mlp", {.shared = "shared_expert"});
    family.shared_gate = "mlp.shared_expert_gate";
    return with_linear_attention(std::move(family));
}

}  // namespace

const FamilyEntry qwen3_5_family{"Qwen3_5ForCausalLM", "qwen3_5_text", read_qwen3_5, [](const ModelConfig& config) {
                                     return with_linear_attention(describe_llama_like(config));
                                 }};

const FamilyEntry qwen3_5_moe_family{"Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", read_qwen3_5_moe,
                                     describe_qwen3_5_moe};

// Its linears of queries, keys, values and output gates are one, and so are the two of gates, one key head's part
// behind the other's.
const FamilyEntry qwen3_next_family{
    "Qwen3NextForCausalLM", "qwen3_next", read_qwen3_next, [](const ModelConfig& config) {
        Family family = describe_qwen3_5_moe(config);
        const DeltaShape& shape = config.delta;
        family.recurrent_stages[0] = {
            {{"linear_attn.in_proj_qkvz", shape.mixed_cols() + shape.value_cols(), config.hidden_size}}};
        family.recurrent.beta = "linear_attn.in_proj_ba";
        family.recurrent.decay_gate.clear();
        return family;
    }};

}  // namespace fairgptq
