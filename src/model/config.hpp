// What config.json says, for every family, in one struct. Written by transformers 4 or 5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "backend/activation.hpp"
#include "backend/delta_rule.hpp"
#include "backend/rotary.hpp"
#include "support/views.hpp"

namespace fairgptq {

struct RopeSettings {
    std::string type = "default";  // default, linear, llama3, yarn, longrope (others are refused by name)
    double theta = 10000.0;
    double factor = 1.0;
    double low_freq_factor = 1.0;  // llama3
    double high_freq_factor = 4.0;
    double beta_fast = 32.0;  // yarn
    double beta_slow = 1.0;
    bool truncate = true;
    std::vector<double> short_factor =
        {};  // longrope: one a pair of elements, for sequences within the original context
    double original_max_position_embeddings = 0;
    double attention_factor = 1.0;  // multiplies cosines and sines
    double score_factor = 1.0;      // multiplies scores where the family takes it from here (yarn's mscale_all_dim)
    /// What the frequencies are rounded to. Never read from config.json: float32 is what models are run with. The
    /// weights' type reproduces programs that convert a whole model, its table of frequencies included
    /// (model.to(bfloat16)).
    DType frequency_type = DType::float32;
};

/// What a token's experts are weighted by: a softmax over all of a layer, or each one's own sigmoid.
enum class RouterScore : std::uint8_t { softmax, sigmoid };

enum class NormKind : std::uint8_t { rms, layer };

/// Attention whose keys and values are made from a vector of few elements, the latent, and whose queries may be
/// (DeepSeek-V2, arXiv 2405.04434, section 2.1). Of a head, the last `rotary_dim` elements turn; of keys, all heads
/// have these in common.
struct LatentAttention {
    std::int64_t query_rank = 0;                  // elements of queries' latent; 0: they are made from what keys are
    std::int64_t key_value_rank = 0;              // 0: there is no latent
    static constexpr double norm_epsilon = 1e-6;  // of both, whatever norm_epsilon is
};

struct ModelConfig {
    std::string model_type;    // llama, mistral, qwen2, …; of the text model in one that takes pictures, too
    std::string architecture;  // LlamaForCausalLM, …
    std::int64_t hidden_size = 0;
    std::int64_t intermediate_size = 0;  // of one expert, in a mixture of them
    std::int64_t experts = 0;            // of each layer that has some; 0: one MLP
    std::int64_t experts_per_token = 0;
    std::vector<bool> dense = {};  // per layer of a mixture: one MLP, of dense_intermediate_size; empty: none has that
    std::int64_t dense_intermediate_size = 0;
    std::int64_t shared_intermediate_size = 0;  // of the expert that every token reaches; 0: there is none
    RouterScore router_score = RouterScore::softmax;
    bool normalized_routing = true;     // the weights of a token's experts sum to 1
    double routing_scale = 1;           // and are multiplied by it
    std::int64_t expert_groups = 1;     // of neighbouring experts, as many in each
    std::int64_t groups_per_token = 1;  // whose experts a token may reach
    std::int64_t layers = 0;
    std::int64_t heads = 0;
    std::int64_t key_value_heads = 0;
    std::int64_t head_dim = 0;
    std::int64_t value_dim = 0;  // of a head's values; 0: head_dim
    LatentAttention latent;
    /// Of layers without attention: a convolution over so many tokens, and behind it linear attention by the gated
    /// delta rule, unless there are no heads of it.
    std::int64_t convolution_width = 0;
    DeltaShape delta;
    std::vector<bool> recurrent = {};  // per layer: which ones these are; empty: none
    bool gated_attention = false;  // the linear of queries makes a gate behind each head's, for what the head gathers
    std::int64_t rotary_dim = 0;   // a head's first elements, which are rotated; the others pass
    RotaryPairs rotary_pairs = RotaryPairs::halves;
    std::int64_t vocab_size = 0;
    std::int64_t max_positions = 0;  // that sequences may have
    std::int64_t original_context =
        0;  // beyond it the model computes otherwise, so max_positions ends there; 0: nowhere
    double norm_epsilon = 1e-6;
    Activation activation = Activation::silu;
    RopeSettings rope;                  // of layers that see everything
    RopeSettings window_rope;           // of those with a window
    std::vector<std::int64_t> windows;  // per layer; 0: full attention
    std::vector<bool> rotary;           // per layer: whether query and key are rotated
    double embedding_multiplier = 1;
    double residual_multiplier = 1;              // of what attention and MLP add
    std::optional<double> attention_multiplier;  // of scores, instead of 1/sqrt(head_dim)
    double attention_cap = 0;                    // of scores, by AttentionShape; 0: none
    double logits_cap = 0;                       // of logits, by SoftCapOperations; 0: none
    double logits_scaling = 1;                   // logits are divided by it
    bool attention_bias = false;  // as config.json says it; families whose biases are fixed leave it alone
    std::optional<bool> attention_output_bias;  // instead of attention_bias
    bool mlp_bias = false;
    bool query_key_norm = false;  // of each head; families that always have it leave it alone
    bool tied_embeddings = false;
    bool may_be_tied = false;       // config.json says both: if the files have no head, it is the embedding
    std::string dtype = "float32";  // float32, float16 or bfloat16, as config.json names it

    bool is_recurrent(std::int64_t layer) const {
        return !recurrent.empty() && recurrent[static_cast<std::size_t>(layer)];
    }
    bool has_recurrent_layers() const { return convolution_width > 0; }
    bool has_delta() const { return delta.value_heads > 0; }
    /// Channels of the convolution.
    std::int64_t convolved_cols() const {
        return !has_recurrent_layers() ? 0 : has_delta() ? delta.mixed_cols() : hidden_size;
    }
    bool has_latent() const { return latent.key_value_rank > 0; }
    std::int64_t value_size() const { return value_dim > 0 ? value_dim : head_dim; }
    /// A head's elements that do not turn.
    std::int64_t unrotated_dim() const { return head_dim - rotary_dim; }
    DType weight_type() const {
        return dtype == "float32" ? DType::float32 : dtype == "float16" ? DType::float16 : DType::bfloat16;
    }
};

/// @throws InvalidInput naming the file and the field: missing, of the wrong kind, out of range, or of an architecture
/// or rope type that is not supported
ModelConfig read_config(const std::filesystem::path& model_dir);

}  // namespace fairgptq
