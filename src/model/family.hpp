// A model family is a description, not a copy of the loop: tensor names, norm, activation, rope, biases, the four
// stages' linears. Adding a family is one file (families/NAME.cpp) and one line in family.cpp.
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
    std::int64_t cols() const { return linears.front().cols; }
};

/// The four stages of a decoder block, in the order of computation: {q,k,v} → {o} → {gate,up} or {fc1} → {down} or
/// {fc2}.
struct Family {
    ModelConfig config;
    std::string layer_prefix;  // "model.layers.{}." — {} is the layer
    std::string embedding;     // "model.embed_tokens.weight"
    std::string positions;     // learned position table, or empty
    std::int64_t position_offset = 0;
    std::string final_norm;  // "model.norm"
    std::string lm_head;     // "lm_head.weight"; the embedding itself where tied
    std::string input_norm;  // "input_layernorm", below the layer's prefix
    std::string mlp_norm;    // "post_attention_layernorm"
    std::string query_norm;  // "self_attn.q_norm", or empty
    std::string key_norm;
    NormKind norm = NormKind::rms;
    bool rotary = true;
    bool gated = true;
    std::vector<StageSpec> stages;  // always four

    std::string layer(std::int64_t index) const;  // the prefix with the layer's number in it
};

/// @throws InvalidInput naming the architecture if none fits
Family describe_family(const ModelConfig& config);

}  // namespace fairgptq
