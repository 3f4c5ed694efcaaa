// A model family is a description, not a copy of the loop: tensor names, norm, activation, rope, biases, the stages'
// linears. Adding a family is one file (families/NAME.cpp) and one line in family.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.hpp"

namespace fairgptq {

struct LinearSpec {
    std::string name;  // below the layer's prefix: "self_attn.q_proj"
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    bool bias = false;
};

/// Linears that read the same input and so share one Hessian.
struct StageSpec {
    std::vector<LinearSpec> linears;
    std::int64_t expert = -1;  // whose linears they are, in a mixture of experts; the shared one has the last number
    bool shared = false;       // whether every token reaches that expert
    std::int64_t cols() const { return linears.front().cols; }
    /// Whether some tokens reach it, and others do not.
    bool is_routed() const { return expert >= 0 && !shared; }
};

/// The stages of a decoder block, in the order of computation: {q,k,v} → {o} → {gate,up} or {fc1} → {down} or {fc2}. A
/// single linear may hold q, k and v, one's rows after the other's, and another one gate and up. Latent attention has
/// more stages before {o}. In a mixture of experts each expert has its two last stages, one expert's after the other's,
/// that of the shared one last.
struct Family {
    ModelConfig config;
    std::string layer_prefix;  // "model.layers.{}." — {} is the layer
    std::string
        further_prefix;  // of layers behind the model's own, which predict further tokens, where files count them anew
    std::string embedding;  // "model.embed_tokens.weight"
    std::string positions;  // learned position table, or empty
    std::int64_t position_offset = 0;
    std::string final_norm;  // "model.norm"
    std::string lm_head;     // "lm_head.weight"; the embedding itself where tied
    // Norms below the layer's prefix; each may be empty.
    std::string input_norm;             // of what attention reads: "input_layernorm"
    std::string mlp_norm;               // of what the MLP reads: "post_attention_layernorm"
    std::string attention_output_norm;  // of what attention adds to the hidden states
    std::string mlp_output_norm;        // of what the MLP adds
    std::string query_norm;             // "self_attn.q_norm"; of latents, where attention has them
    std::string key_norm;
    bool query_norm_of_all_heads = false;  // query_norm and key_norm: of all heads together, instead of each
    NormKind norm = NormKind::rms;
    float norm_offset = 0;  // what is added to norms' weights as files have them
    bool gated = true;
    bool fits_float16 = true;                 // false where activations may overflow it
    int attention_stages = 2;                 // of a layer's stages the first ones, {o} the last of them
    std::vector<StageSpec> stages;            // of a layer: attention_stages + 2, or + 2 · experts
    std::vector<StageSpec> dense_stages;      // of a layer without experts beside such that have some
    std::vector<StageSpec> recurrent_stages;  // of a layer without attention
    /// What such a layer has beside its stages' linears, below the layer's prefix. The gates' two linears (of b and of
    /// a) make one number a head each, and stay as they are. Without the second the first makes both; without linear
    /// attention there is the convolution alone.
    struct RecurrentNames {
        std::string beta = "linear_attn.in_proj_b", decay_gate = "linear_attn.in_proj_a";
        std::string convolution = "linear_attn.conv1d.weight", decay = "linear_attn.A_log",
                    step = "linear_attn.dt_bias", norm = "linear_attn.norm";
    } recurrent;
    std::string router;        // of a mixture of experts: the linear that chooses among them; never quantized
    std::string router_bias;   // added to experts' scores where they are chosen, not where they are weighted; or empty
    int router_bias_rows = 0;  // 1: it is a matrix of one row in the files, not a vector
    std::string shared_gate;   // the linear whose sigmoid weights the shared expert; or empty, then it counts whole
    /// Parts beside the text model's layers ("vision_tower", "mtp"), which stay as they are.
    std::vector<std::string> other_parts;
    bool within_another = false;  // the text model of one that takes pictures, too
    /// What files and what transformers in memory put before a name, where they differ.
    struct Prefix {
        std::string stored, loaded;
    };
    std::vector<Prefix> prefixes;
    /// What files may have in the place of "model.", where the text model was taken out of one that takes pictures,
    /// too; or empty.
    std::string otherwise;

    std::string layer(
        std::int64_t index) const;  // the prefix with the layer's number in it, also behind the model's own
    bool is_mixture() const { return config.experts > 0; }
    bool has_experts(std::int64_t layer) const {
        return is_mixture() && (config.dense.empty() || !config.dense[static_cast<std::size_t>(layer)]);
    }
    const std::vector<StageSpec>& stages_of(std::int64_t layer) const {
        if (config.is_recurrent(layer)) return recurrent_stages;
        return is_mixture() && !has_experts(layer) ? dense_stages : stages;
    }
    /// Whether what the stage makes is computed with the next one's, so that it leaves all inputs as they are.
    bool waits(int stage) const { return stage > 0 && stage < attention_stages - 2; }
    /// Whether the stage adds what it makes to the hidden states: attention's last one, and the layer's.
    bool adds_to_hidden(std::int64_t layer, int stage) const {
        return stage == attention_stages - 1 || stage + 1 == stage_count(layer);
    }
    std::int64_t query_norm_size() const;
    std::int64_t key_norm_size() const;
    int stage_count(std::int64_t layer) const { return static_cast<int>(stages_of(layer).size()); }
    /// Linears in layers that are never quantized, below the layer's prefix.
    std::vector<std::string> kept_linears() const;
    /// The first layer of each kind: stages_of has what any layer has.
    std::vector<std::int64_t> kinds_of_layers() const;
    std::string loaded_name(const std::string& stored_name) const;
};

/// Calls visit(layer, stage, linear) for each linear of the first `layers`, in the order of computation.
template <class Visit>
void for_each_linear(const Family& family, std::int64_t layers, const Visit& visit) {
    for (std::int64_t layer = 0; layer < layers; ++layer)
        for (const StageSpec& stage : family.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                visit(layer, stage, linear);
}

/// What a linear is called where experts are not told apart: "mlp.experts.*.gate_proj".
std::string kind_of_linear(const std::string& name);

/// @throws InvalidInput naming the architecture if none fits
Family describe_family(const ModelConfig& config);

/// The family of a model folder, by its config.json, and by its tensors' names where that leaves something open:
/// whether the head is the embedding (without weights it counts as one of its own), and whether names are those that
/// transformers has in memory, under which some programs store them. @throws InvalidInput as read_config and Checkpoint
/// do
Family read_family(const std::filesystem::path& model_dir);

}  // namespace fairgptq
