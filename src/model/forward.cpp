#include "model/forward.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace fairgptq {

void run_model(const ForwardModel& model, std::span<const ChunkTokens> chunks,
               const std::function<void(const FinishedChunk&)>& finished,
               const std::function<void(std::int64_t layer)>& layer_done) {
    Backend& backend = model.backend;
    const ModelConfig& config = model.family.config;
    const DType type = backend.activation_type();
    const std::int64_t most_tokens = largest_chunk(chunks);
    std::int64_t all_tokens = 0;
    for (const ChunkTokens& chunk : chunks)
        all_tokens += chunk.tokens();

    Decoder decoder(backend, model.family, most_tokens);
    const OuterWeights outer = read_outer(backend, model.family, model.checkpoint);
    if (model.override_weights.outer) model.override_weights.outer(outer);
    const auto room = [&](std::int64_t rows, std::int64_t cols) {
        return backend.allocate(static_cast<std::size_t>(rows * cols) * size_of(type));
    };
    const Buffer hidden = room(all_tokens, config.hidden_size);
    const std::int64_t widest = Decoder::widest_input(model.family);
    const Buffer inputs = room(most_tokens, widest);

    std::vector<ChunkState> states;
    std::int64_t first = 0;
    for (const ChunkTokens& chunk : chunks) {
        states.push_back({hidden.tensor(type, all_tokens, config.hidden_size).rows_from(first, chunk.tokens()),
                          inputs.tensor(type, chunk.tokens(), widest), chunk.offsets, chunk.prefixes});
        first += chunk.tokens();
        decoder.embed(outer, chunk, states.back());
    }
    LayerPrefetcher layers(backend, model.family, model.checkpoint, 0, config.layers, ReadAhead::to_device, {},
                           model.override_weights.replaces);
    for (std::int64_t index = 0; index < config.layers; ++index) {
        LayerWeights layer = layers.next();
        if (model.override_weights.layer) model.override_weights.layer(layer);
        for (ChunkState& state : states) {
            decoder.run_layer(layer, state);
        }
        backend.synchronize();  // before the layer's memory goes
        if (layer_done) layer_done(index);
    }
    for (std::size_t index = 0; index < chunks.size(); ++index)
        finished({index, chunks[index], states[index], decoder, outer});
}

void visit_logits(Backend& backend, const FinishedChunk& chunk,
                  const std::function<void(std::int64_t first, TensorView logits)>& visit) {
    const std::int64_t vocabulary = chunk.decoder.family().config.vocab_size;
    const std::int64_t most_rows = std::min(Decoder::max_logit_rows, chunk.tokens.tokens());
    const DType type = backend.activation_type();
    const Buffer memory = backend.allocate(static_cast<std::size_t>(most_rows * vocabulary) * size_of(type));
    std::vector<std::int32_t> rows;
    for (std::int64_t first = 0; first < chunk.tokens.tokens(); first += most_rows) {
        const std::int64_t count = std::min(most_rows, chunk.tokens.tokens() - first);
        rows.resize(static_cast<std::size_t>(count));
        std::iota(rows.begin(), rows.end(), static_cast<std::int32_t>(first));
        const TensorView logits = memory.tensor(type, count, vocabulary);
        chunk.decoder.logits(chunk.outer, chunk.state, rows, logits);
        visit(first, logits);
    }
}

}  // namespace fairgptq
