// Runs a model on the CPU and keeps what the tests look at.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/decoder.hpp"
#include "model/forward.hpp"

namespace fairgptq::testing {

/// Values of a device matrix, row after row.
inline std::vector<float> to_host(Backend& backend, TensorView matrix) {
    backend.synchronize();
    std::vector<float> values(static_cast<std::size_t>(matrix.rows * matrix.cols));
    for (std::int64_t row = 0; row < matrix.rows; ++row)
        backend.copy_to_host(values.data() + row * matrix.cols, matrix.float32().row(row),
                             static_cast<std::size_t>(matrix.cols) * sizeof(float));
    return values;
}

/// The input of every stage, by the full name of its first linear, from a pass made stage by stage.
inline std::map<std::string, std::vector<float>> stage_inputs(Backend& backend, const Family& family,
                                                              const Checkpoint& checkpoint, const ChunkTokens& chunk) {
    std::map<std::string, std::vector<float>> inputs;
    const OuterWeights outer = read_outer(backend, family, checkpoint);
    Decoder decoder(backend, family, chunk.tokens());
    const std::int64_t widest = Decoder::widest_input(family);
    const Buffer hidden = backend.allocate(static_cast<std::size_t>(chunk.tokens() * family.config.hidden_size) * 4);
    const Buffer input = backend.allocate(static_cast<std::size_t>(chunk.tokens() * (widest + 3)) * 4);
    ChunkState state{hidden.tensor(DType::float32, chunk.tokens(), family.config.hidden_size),
                     input.tensor(DType::float32, chunk.tokens(), widest + 3), chunk.offsets};
    decoder.embed(outer, chunk, state);
    for (std::int64_t index = 0; index < family.config.layers; ++index) {
        const LayerWeights layer = read_layer(backend, family, checkpoint, index);
        decoder.begin_layer(layer, state);
        for (int stage = 0; stage < family.stage_count(index); ++stage) {
            const std::string name =
                family.layer(index) + family.stages_of(index)[static_cast<std::size_t>(stage)].linears[0].name;
            inputs[name] = to_host(backend, decoder.stage_input(index, stage, state));
            decoder.run_stage(stage, layer, state);
        }
    }
    return inputs;
}

/// Logits of every token of every chunk, one after another.
inline std::vector<float> all_logits(const ForwardModel& model, std::span<const ChunkTokens> chunks) {
    std::vector<float> logits;
    run_model(model, chunks, [&](const FinishedChunk& chunk) {
        visit_logits(model.backend, chunk, [&](std::int64_t, TensorView rows) {
            const std::vector<float> values = to_host(model.backend, rows);
            logits.insert(logits.end(), values.begin(), values.end());
        });
    });
    return logits;
}

}  // namespace fairgptq::testing
