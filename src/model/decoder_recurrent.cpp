// What a decoder does in layers without attention: linear attention behind a convolution, and convolutions alone.
#include <array>
#include <vector>

#include "model/decoder.hpp"
#include "model/parts.hpp"

namespace fairgptq {

void Decoder::attend_linearly(const LayerWeights& layer, ChunkState& state) {
    const DeltaShape& shape = family_.config.delta;
    const DType type = backend_.activation_type();
    const std::int64_t tokens = state.hidden.rows;
    const TensorView inputs = stage_input(layer.layer, 0, state);
    const TensorView rows = convolution_input(state);
    const TensorView own = rows.rows_from(rows.rows - tokens, tokens);
    const TensorView output_gates =
        value_.tensor(type, tokens, part(shape.value_cols())).cols_from(0, shape.value_cols());
    const MatrixView<float> gates(reinterpret_cast<float*>(output_gates.row(tokens)), tokens, 2 * shape.value_heads);
    const TensorView both(gates);
    if (layer.delta.decay_gate.empty()) {
        project_by_key_heads(layer, inputs, own, output_gates, both);
    } else {
        project_parts(layer, 0, std::array{own, output_gates}, inputs);
        backend_.linear(inputs, layer.delta.beta, nullptr, both.cols_from(0, shape.value_heads), false);
        backend_.linear(inputs, layer.delta.decay_gate, nullptr, both.cols_from(shape.value_heads, shape.value_heads),
                        false);
    }
    const TensorView mixed = convolve(layer, rows, true, state);

    std::vector<DeltaSequence> sequences;
    for (std::size_t s = 0; s + 1 < state.offsets.size(); ++s)
        sequences.push_back(
            {state.prefixes.empty() ? RowRange{} : state.prefixes[s], {state.offsets[s], state.offsets[s + 1]}});
    // Where the convolution's input was, which has been used.
    const TensorView made = query_or_gate_.tensor(type, tokens, shape.value_cols());
    backend_.delta_rule(mixed, gates, layer.delta.decay, layer.delta.step, sequences, shape,
                        state.cache == nullptr ? nullptr : state.cache->states, made);
    const TensorView heads(made.data, type, tokens * shape.value_heads, shape.value_dim);
    backend_.rms_norm(heads, layer.delta.norm, static_cast<float>(family_.config.norm_epsilon), heads);
    backend_.gated_activation(Activation::silu, output_gates, made, stage_input(layer.layer, 1, state));
}

void Decoder::project_by_key_heads(const LayerWeights& layer, TensorView inputs, TensorView rows,
                                   TensorView output_gates, TensorView gates) {
    const DeltaShape& shape = family_.config.delta;
    const std::int64_t sharing = shape.value_heads / shape.key_heads;
    const std::int64_t values = sharing * shape.value_dim;
    // Parts of a key head lie side by side in `from`, and go to places of their own.
    const auto deal = [&](TensorView from, std::int64_t head, std::int64_t& first, TensorView to, std::int64_t begin,
                          std::int64_t cols) {
        backend_.scale(from.cols_from(first, cols), 1, to.cols_from(begin + head * cols, cols), false);
        first += cols;
    };
    const TensorView all = key_or_up_.tensor(rows.type, rows.rows, shape.mixed_cols() + shape.value_cols());
    project(linear(layer, 0, 0), inputs, all, false);
    std::int64_t first = 0;
    for (std::int64_t head = 0; head < shape.key_heads; ++head) {
        deal(all, head, first, rows, 0, shape.key_dim);
        deal(all, head, first, rows, shape.key_cols(), shape.key_dim);
        deal(all, head, first, rows, 2 * shape.key_cols(), values);
        deal(all, head, first, output_gates, 0, values);
    }
    const TensorView both = key_or_up_.tensor(DType::float32, rows.rows, 2 * shape.value_heads);
    backend_.linear(inputs, layer.delta.beta, nullptr, both, false);
    first = 0;
    for (std::int64_t head = 0; head < shape.key_heads; ++head) {
        deal(both, head, first, gates, 0, sharing);
        deal(both, head, first, gates, shape.value_heads, sharing);
    }
}

void Decoder::convolve_between_gates(const LayerWeights& layer, ChunkState& state) {
    const std::int64_t hidden = family_.config.hidden_size;
    const std::int64_t tokens = state.hidden.rows;
    const TensorView parts = value_.tensor(backend_.activation_type(), tokens, 3 * hidden);
    project(linear(layer, 0, 0), stage_input(layer.layer, 0, state), parts, false);
    const TensorView rows = convolution_input(state);
    backend_.gated_activation(Activation::identity, parts.cols_from(0, hidden), parts.cols_from(2 * hidden, hidden),
                              rows.rows_from(rows.rows - tokens, tokens));
    const TensorView convolved = convolve(layer, rows, false, state);
    backend_.gated_activation(Activation::identity, parts.cols_from(hidden, hidden), convolved,
                              stage_input(layer.layer, 1, state));
}

TensorView Decoder::convolution_input(const ChunkState& state) {
    const std::int64_t kept = state.cache == nullptr ? 0 : state.cache->history.rows;
    return query_or_gate_.tensor(backend_.activation_type(), kept + state.hidden.rows, family_.config.convolved_cols());
}

TensorView Decoder::convolve(const LayerWeights& layer, TensorView rows, bool silu, ChunkState& state) {
    const std::int64_t width = family_.config.convolution_width;
    const std::int64_t tokens = state.hidden.rows;
    const std::int64_t kept = rows.rows - tokens;
    std::vector<std::int32_t> previous(static_cast<std::size_t>(rows.rows)), last;
    const auto set_chain = [&](RowRange range, std::int64_t before) {
        for (std::int64_t row = range.begin; row < range.end; ++row)
            previous[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(row == range.begin ? before : row - 1);
    };
    for (std::size_t s = 0; s + 1 < state.offsets.size(); ++s) {
        const RowRange own{kept + state.offsets[s], kept + state.offsets[s + 1]};
        if (kept == 0) {
            const bool has_prefix = !state.prefixes.empty() && state.prefixes[s].size() > 0;
            set_chain(own, has_prefix ? state.prefixes[s].end - 1 : -1);
            continue;
        }
        const std::int64_t first = static_cast<std::int64_t>(s) * (width - 1);  // of its kept rows
        set_chain({first, first + width - 1}, -1);
        set_chain(own, first + width - 2);
        for (std::int64_t i = 0; i < width - 1; ++i) {
            const std::int64_t back = width - 2 - i;  // rows behind it
            last.push_back(static_cast<std::int32_t>(back < own.size() ? own.end - 1 - back : first + i + own.size()));
        }
    }
    if (kept > 0) backend_.scale(state.cache->history, 1, rows.rows_from(0, kept), false);
    const TensorView convolved = key_or_up_.tensor(rows.type, rows.rows, rows.cols);
    backend_.convolve(rows, layer.convolution, width, previous, silu, convolved);
    if (kept > 0) backend_.embed(rows, last, state.cache->history, false);  // gathers rows
    return convolved.rows_from(kept, tokens);
}

}  // namespace fairgptq
