// A whole model over many chunks, layer by layer: each layer's weights are read once, whatever the number of chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "model/chunks.hpp"
#include "model/decoder.hpp"
#include "model/weights.hpp"

namespace fairgptq {

/// What a forward pass is made of. Everything must outlive the call.
struct ForwardModel {
    Backend& backend;
    const Family& family;
    const Checkpoint& checkpoint;
    WeightsOverride override_weights = {};
};

/// A chunk after the last layer. `decoder` and `outer` make logits of it.
struct FinishedChunk {
    std::size_t index;
    const ChunkTokens& tokens;
    const ChunkState& state;  // hidden is the last layer's output, before the final norm
    Decoder& decoder;
    const OuterWeights& outer;
};

/// Runs the model over all chunks; then calls `finished` for each, in order. The hidden states of all chunks are on the
/// device at once ([tokens, hidden_size] in the activation type), and the weights of two layers.
/// @param layer_done called after each layer (for progress); may be empty
/// @throws InvalidInput as read_layer and read_outer do, or for a token id beyond the vocabulary
void run_model(const ForwardModel& model, std::span<const ChunkTokens> chunks,
               const std::function<void(const FinishedChunk&)>& finished,
               const std::function<void(std::int64_t layer)>& layer_done = {});

/// Calls `visit` with the logits of every token of the chunk, at most Decoder::max_logit_rows rows at a time, in order.
/// @param logits [rows, vocabulary] on the device, in the activation type; row 0 is the chunk's token `first`
void visit_logits(Backend& backend, const FinishedChunk& chunk,
                  const std::function<void(std::int64_t first, TensorView logits)>& visit);

}  // namespace fairgptq
