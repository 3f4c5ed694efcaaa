// A decoder block as stages over a ragged chunk of sequences (docs/method.md "Where inputs come from").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/chunks.hpp"
#include "model/family.hpp"
#include "model/routing.hpp"
#include "model/weights.hpp"

namespace fairgptq {

/// What positions that went before have left, for generating token by token; the chunk's own are added to it.
struct CacheStep {
    std::vector<std::int64_t> positions;    // [tokens of the chunk]
    std::vector<CachedSequence> sequences;  // queries: rows of the chunk; own: rows of the cache, this step's included
    TensorView keys, values;                // this layer's cache: [rows, cols of AttentionShape]
    /// Where the layer has no attention, instead: of each sequence the last inputs of the convolution, oldest first,
    /// and the states of linear attention. Zeros before the first step.
    TensorView history;       // [sequences · (width − 1), ModelConfig::convolved_cols()]
    float* states = nullptr;  // [sequences, DeltaShape::state_elements()]
};

/// The state of one chunk between stages. All memory is the caller's.
struct ChunkState {
    TensorView hidden;  // [tokens, hidden_size], the residual stream
    TensorView inputs;  // [tokens, ≥ widest_input], without gaps; the current stage's input is its first stage.cols()
                        // columns, rows `stride` apart. Latent attention has what queries are made from first, and
                        // behind it keys' and values' latent with what turns of keys. Where a layer has experts, the
                        // memory is divided otherwise: first all rows of their inputs, then the sum of what they make,
                        // then what experts make of their rows in their first half.
    std::span<const std::int64_t> offsets;
    std::span<const RowRange> prefixes = {};  // ChunkTokens::prefixes
    const CacheStep* cache = nullptr;         // only while generating
    std::shared_ptr<Routing> routing = {};    // in a mixture of experts, from attention's last stage on
    std::int64_t room = 0;  // elements that experts may use from inputs.data on, if more than inputs has
};

class Decoder {
  public:
    /// Scratch for chunks of up to `max_tokens` tokens is allocated once. With a cache, a convolution needs room for
    /// its width − 1 tokens more of each sequence.
    /// @param experts_at_once what the first halves of experts 0 to experts_at_once − 1 make is kept until their second
    /// halves are run, then that of as many after them, and so on
    Decoder(Backend& backend, const Family& family, std::int64_t max_tokens, std::int64_t experts_at_once = 1);

    /// Columns of ChunkState::inputs.
    static std::int64_t widest_input(const Family& family);
    /// Elements of a token in their memory: more than that where several experts are run at once (ChunkState::room).
    static std::int64_t inputs_of_token(const Family& family, std::int64_t experts_at_once);
    /// Of a token's elements, how many have to be there for stage `stage`: columns, or all of them.
    static std::int64_t input_cols(const Family& family, std::int64_t layer, int stage,
                                   std::int64_t experts_at_once = 1);
    static AttentionShape attention_shape(const ModelConfig& config, std::int64_t layer);
    /// Bytes that the constructor allocates: for `plan`.
    static std::size_t scratch_bytes(const Family& family, std::int64_t max_tokens, DType activation_type);

    /// hidden = embedding of the tokens (and positions), times the family's multiplier.
    void embed(const OuterWeights& outer, const ChunkTokens& chunk, ChunkState& state);
    /// inputs = input norm of hidden (or hidden itself): the first stage's input.
    void begin_layer(const LayerWeights& layer, ChunkState& state);
    /// Runs a stage with its linears' weights: inputs (this stage's) → inputs of the next stage, with hidden updated
    /// where the stage adds to it (Family::adds_to_hidden); the last one leaves inputs undefined.
    void run_stage(int stage, const LayerWeights& layer, ChunkState& state);
    /// All stages of a layer.
    void run_layer(const LayerWeights& layer, ChunkState& state);
    /// The current stage's input as a matrix [tokens, cols of that stage]; of an expert [tokens that reach it, cols],
    /// valid until anything else is asked of the decoder.
    TensorView stage_input(std::int64_t layer, int stage, const ChunkState& state);

    /// Final norm of `hidden` rows, then logits [rows, vocab] in `logits` (activation type). `rows` selects rows of
    /// hidden (host indices), at most `max_logit_rows` at a time.
    void logits(const OuterWeights& outer, const ChunkState& state, std::span<const std::int32_t> rows,
                TensorView logits);
    static constexpr std::int64_t max_logit_rows = 256;

    const Family& family() const { return family_; }

  private:
    void norm(const LayerWeights::Norm& norm, TensorView inputs, TensorView output);
    void project(const LinearWeights& linear, TensorView inputs, TensorView output, bool accumulate);
    /// The norm of what a block reads, or a copy where the family has none there.
    void normed_or_copied(const LayerWeights::Norm& weights, TensorView inputs, TensorView output);
    /// hidden += the linear of inputs, by way of the family's norm and multiplier.
    void add_to_hidden(const LinearWeights& linear, TensorView inputs, const LayerWeights::Norm& output_norm,
                       ChunkState& state);
    /// One output for each of a stage's linears, or for parts of the rows of its only one.
    void project_parts(const LayerWeights& layer, int stage, std::span<const TensorView> outputs, TensorView inputs);
    /// Queries, keys and values of a chunk, in the decoder's memory.
    struct Attended {
        TensorView query, key, value;
    };
    Attended project_heads(const LayerWeights& layer, ChunkState& state);
    /// Inputs of the first stage → latents.
    void compress(const LayerWeights& layer, ChunkState& state);
    Attended expand_latent(const LayerWeights& layer, ChunkState& state);
    void attend(const LayerWeights& layer, ChunkState& state);
    /// The same where the layer's attention is linear.
    void attend_linearly(const LayerWeights& layer, ChunkState& state);
    /// Queries, keys and values of all heads, then output gates, from a linear that makes them of one key head after
    /// the other; and the gates likewise.
    void project_by_key_heads(const LayerWeights& layer, TensorView inputs, TensorView rows, TensorView output_gates,
                              TensorView gates);
    /// The same where the layer has a convolution between two gates.
    void convolve_between_gates(const LayerWeights& layer, ChunkState& state);
    /// Where what goes into the convolution has its place: kept rows of a cache, then the chunk's own.
    TensorView convolution_input(const ChunkState& state);
    /// @param rows convolution_input
    /// @returns of the chunk's own rows what it makes
    TensorView convolve(const LayerWeights& layer, TensorView rows, bool silu, ChunkState& state);
    /// @param head_dim from one head's first element that turns to the next one's
    void rotate(std::int64_t layer, TensorView heads, std::int64_t head_dim, const ChunkState& state);
    void gather(const Attended& heads, const AttentionShape& shape, TensorView output, ChunkState& state);
    /// inputs → output by the MLP's first half: of the stage `stage`.
    void expand(const LayerWeights& layer, int stage, TensorView inputs, TensorView output);
    const StageSpec& spec(std::int64_t layer, int stage) const;
    bool is_second_half(int stage) const { return (stage - family_.attention_stages) % 2 == 1; }  // of an MLP
    /// What the MLP reads times a few rows, at the host. In float32, whatever the activations: experts whose logits are
    /// near each other are not to change places.
    std::vector<float> scores(const TensorView& weight, const ChunkState& state);
    /// Chooses each row's experts, from the MLP's input.
    void route(const LayerWeights& layer, ChunkState& state);
    void run_expert(int stage, const LayerWeights& layer, ChunkState& state);
    /// The three parts of ChunkState::inputs that experts use.
    TensorView experts_input(const ChunkState& state) const;
    TensorView experts_sum(const ChunkState& state) const;
    TensorView expanded(const StageSpec& spec, std::int64_t cols, const ChunkState& state) const;
    /// What the MLP reads, be it one or many.
    TensorView mlp_input(std::int64_t layer, const ChunkState& state) const;
    const LinearWeights& linear(const LayerWeights& layer, int stage, std::size_t index) const;

    Backend& backend_;
    Family family_;
    std::int64_t max_tokens_, experts_at_once_;
    std::vector<float> frequencies_, window_frequencies_;
    Buffer query_or_gate_, key_or_up_, value_;  // the first also holds the rows that logits are made of
    Buffer expert_rows_;                        // what goes into an expert, or comes out of it
};

}  // namespace fairgptq
