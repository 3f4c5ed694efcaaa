// LFM2 (and 2.5), dense: most layers have a convolution between two gates in attention's place.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/families/families.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

/// Which layers have the convolution: layer_types, or all but those in full_attn_idxs.
void read_convolutions(const ConfigReader& reader, ModelConfig& config) {
    config.recurrent.assign(static_cast<std::size_t>(config.layers), false);
    if (auto types = read_layer_types(reader, config, "conv")) {
        config.recurrent = std::move(*types);
    } else if (reader.has("full_attn_idxs")) {
        config.recurrent.assign(config.recurrent.size(), true);
        const nlohmann::json& layers = reader.at("full_attn_idxs");
        if (!layers.is_array()) reader.refuse("full_attn_idxs", "should be a list of numbers");
        for (const nlohmann::json& layer : layers) {
            if (!layer.is_number_unsigned() || layer.get<std::uint64_t>() >= config.recurrent.size())
                reader.refuse("full_attn_idxs", fmt::format("has {}, which is no layer's number", json_text(layer)));
            config.recurrent[layer.get<std::size_t>()] = false;
        }
    }
    config.convolution_width = reader.size("conv_L_cache", 64, 3);
    reader.require_flag("conv_bias", false, "convolutions with a bias are not supported");
}

/// What the MLP's width is made of: two thirds of what the field says, times a factor, up to a multiple.
std::int64_t adjusted_width(const ConfigReader& reader, std::int64_t width) {
    if (!reader.flag("block_auto_adjust_ff_dim", true)) return width;
    width = 2 * width / 3;
    if (reader.is_null("block_ffn_dim_multiplier")) return width;
    const double factor = reader.number("block_ffn_dim_multiplier", 1e-3, 1e3, 1);
    const std::int64_t multiple = reader.size("block_multiple_of", largest_width, 256);
    width = static_cast<std::int64_t>(factor * static_cast<double>(width));
    return std::clamp((width + multiple - 1) / multiple * multiple, std::int64_t{1}, largest_width);
}

void read_lfm2(const ConfigReader& reader, ModelConfig& config) {
    read_llama_like(reader, config,
                    {.intermediate_size = 12288,
                     .heads = 32,
                     .key_value_heads = 8,
                     .vocab_size = 65536,
                     .max_positions = 128000,
                     .rope_theta = 1e6,
                     .tied_embeddings = true,
                     .activation = "silu"});
    config.tied_embeddings = reader.flag("tie_embedding", config.tied_embeddings);  // its older name, which counts
    config.norm_epsilon = reader.number("norm_eps", 0, 1, 1e-5);
    config.intermediate_size =
        adjusted_width(reader, reader.size("block_ff_dim", largest_width, config.intermediate_size));
    read_convolutions(reader, config);
}

Family describe_lfm2(const ModelConfig& config) {
    const std::int64_t hidden = config.hidden_size;
    Family family = describe_llama_like(config);
    family.final_norm = "model.embedding_norm";
    family.input_norm = "operator_norm";
    family.mlp_norm = "ffn_norm";
    family.query_norm = "self_attn.q_layernorm";
    family.key_norm = "self_attn.k_layernorm";
    family.stages[1].linears[0].name = "self_attn.out_proj";
    family.stages[2].linears[0].name = "feed_forward.w1";
    family.stages[2].linears[1].name = "feed_forward.w3";
    family.stages[3].linears[0].name = "feed_forward.w2";
    family.recurrent_stages = family.stages;
    const LinearSpec parts{"conv.in_proj", 3 * hidden, hidden};
    const LinearSpec out{"conv.out_proj", hidden, hidden};
    family.recurrent_stages[0].linears = {parts};
    family.recurrent_stages[1].linears = {out};
    family.recurrent.convolution = "conv.conv.weight";
    return family;
}

}  // namespace

const FamilyEntry lfm2_family{"Lfm2ForCausalLM", "lfm2", read_lfm2, describe_lfm2};

}  // namespace fairgptq
