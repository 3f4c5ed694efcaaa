#include "model/decoder.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "model/parts.hpp"
#include "model/rope.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

/// Elements of the scratch buffers.
struct Scratch {
    std::int64_t query_or_gate, key_or_up, value, expert_rows;
};

/// Whether something happens to what attention and MLP make before it is added to the hidden states.
bool adds_apart(const Family& family) {
    return !family.attention_output_norm.empty() || !family.mlp_output_norm.empty() ||
           family.config.residual_multiplier != 1;
}

std::int64_t widest_mlp(const ModelConfig& config) {
    return std::max({config.intermediate_size, config.dense_intermediate_size, config.shared_intermediate_size});
}

/// Columns of keys, where queries lie behind them.
std::int64_t key_part(const ModelConfig& config) {
    return part(config.key_value_heads * config.head_dim);
}

Scratch scratch_elements(const Family& family, std::int64_t max_tokens) {
    const ModelConfig& config = family.config;
    const AttentionShape shape = Decoder::attention_shape(config, 0);
    // A gate behind each head's query, from which they are parted into memory behind that of keys.
    const std::int64_t heads = config.heads * config.head_dim;
    const std::int64_t query = config.gated_attention ? 2 * heads : heads;
    const std::int64_t key =
        config.gated_attention ? key_part(config) + heads : config.key_value_heads * config.head_dim;
    // Rows of a convolution go from the first into the second; what linear attention makes of them goes back into the
    // first. The third holds what they are multiplied by, or made of.
    const std::int64_t convolved = config.convolved_cols();
    const std::int64_t unparted =
        family.recurrent.decay_gate.empty()
            ? std::max(convolved + config.delta.value_cols(), 4 * config.delta.value_heads)  // and gates in float32
            : convolved;
    const std::int64_t beside = !config.has_recurrent_layers() ? 0
                                : config.has_delta()
                                    ? part(config.delta.value_cols()) + 4 * config.delta.value_heads  // and float32
                                    : 3 * config.hidden_size;
    const LatentAttention& latent = config.latent;
    // Of latents, first they are there with what turns, then what is made of them.
    const std::int64_t value =
        config.has_latent() ? std::max(config.heads * shape.value_step(), latent.key_value_rank + config.rotary_dim)
                            : shape.value_cols();
    const std::int64_t gate = widest_mlp(config);
    const std::int64_t added = adds_apart(family) ? config.hidden_size : 0;
    return {std::max(max_tokens * std::max({query, gate, added, convolved, 2 * config.experts,
                                            latent.query_rank}),  // experts: float32
                     Decoder::max_logit_rows * config.hidden_size),
            max_tokens * std::max({key, unparted, family.gated ? gate : 0}), max_tokens * std::max(value, beside),
            family.is_mixture() ? max_tokens * config.hidden_size : 0};
}

/// Each token's place in its sequence.
std::vector<std::int64_t> positions(const ChunkState& state) {
    return state.cache != nullptr ? state.cache->positions : positions_of(state.offsets, state.prefixes);
}

/// `rows` of `cols`, each as long as part() says, in the memory of a chunk's inputs behind so many elements.
TensorView rows_in(const ChunkState& state, std::int64_t before, std::int64_t rows, std::int64_t cols) {
    const TensorView& inputs = state.inputs;
    const std::int64_t room = std::max(state.room, inputs.rows * inputs.cols);
    if (inputs.stride != inputs.cols || before + rows * part(cols) > room)
        throw Failure("a chunk's inputs have no room for what {} tokens need of experts", inputs.rows);
    const TensorView all(inputs.cols_from(before, 0).data, inputs.type, rows, part(cols));
    return all.cols_from(0, cols);
}

/// Columns of ChunkState::inputs that queries are made from, in latent attention.
std::int64_t query_source(const ModelConfig& config) {
    return config.latent.query_rank > 0 ? config.latent.query_rank : config.hidden_size;
}

/// Where keys' and values' latent begins.
std::int64_t latent_begin(const ModelConfig& config) {
    return part(query_source(config));
}

}  // namespace

Decoder::Decoder(Backend& backend, const Family& family, std::int64_t max_tokens, std::int64_t experts_at_once)
    : backend_(backend), family_(family), max_tokens_(max_tokens), experts_at_once_(experts_at_once) {
    const ModelConfig& config = family_.config;
    if (std::find(config.rotary.begin(), config.rotary.end(), true) != config.rotary.end()) {
        frequencies_ = rope_frequencies(config.rope, config.rotary_dim);
        window_frequencies_ = rope_frequencies(config.window_rope, config.rotary_dim);
    }
    const Scratch elements = scratch_elements(family_, max_tokens_);
    const std::size_t size = size_of(backend_.activation_type());
    query_or_gate_ = backend_.allocate(static_cast<std::size_t>(elements.query_or_gate) * size);
    key_or_up_ = backend_.allocate(static_cast<std::size_t>(elements.key_or_up) * size);
    value_ = backend_.allocate(static_cast<std::size_t>(elements.value) * size);
    expert_rows_ = backend_.allocate(static_cast<std::size_t>(elements.expert_rows) * size);
}

std::int64_t Decoder::widest_input(const Family& family) {
    return inputs_of_token(family, 1);
}

std::int64_t Decoder::inputs_of_token(const Family& family, std::int64_t experts_at_once) {
    std::int64_t widest = 0;
    for (const std::int64_t layer : family.kinds_of_layers())
        for (const StageSpec& stage : family.stages_of(layer))
            widest = std::max(widest, stage.cols());
    const ModelConfig& config = family.config;
    if (config.has_latent())
        widest = std::max(widest, latent_begin(config) + config.latent.key_value_rank + config.rotary_dim);
    if (!family.is_mixture()) return widest;
    // A token reaches no more of several experts than it reaches of all.
    const std::int64_t reached = std::min(experts_at_once, config.experts_per_token);
    const std::int64_t expanded =
        std::max(reached * part(config.intermediate_size), part(config.shared_intermediate_size));
    return part(std::max(widest, 2 * part(config.hidden_size) + expanded));
}

std::int64_t Decoder::input_cols(const Family& family, std::int64_t layer, int stage, std::int64_t experts_at_once) {
    const StageSpec& spec = family.stages_of(layer).at(static_cast<std::size_t>(stage));
    const ModelConfig& config = family.config;
    if (stage > 0 && stage < family.attention_stages - 1)
        return latent_begin(config) + config.latent.key_value_rank + config.rotary_dim;
    return spec.expert < 0 ? spec.cols() : inputs_of_token(family, experts_at_once);
}

AttentionShape Decoder::attention_shape(const ModelConfig& config, std::int64_t layer) {
    const double usual = 1 / std::sqrt(static_cast<double>(config.head_dim));
    return {.heads = config.heads,
            .key_value_heads = config.key_value_heads,
            .head_dim = config.head_dim,
            .scale = static_cast<float>(config.attention_multiplier.value_or(usual)),
            .window = config.windows.at(static_cast<std::size_t>(layer)),
            .cap = static_cast<float>(config.attention_cap),
            .value_dim = config.value_dim,
            .values_apart = config.has_latent() ? config.unrotated_dim() + config.value_size() : 0};
}

std::size_t Decoder::scratch_bytes(const Family& family, std::int64_t max_tokens, DType activation_type) {
    const Scratch elements = scratch_elements(family, max_tokens);
    return static_cast<std::size_t>(elements.query_or_gate + elements.key_or_up + elements.value +
                                    elements.expert_rows) *
           size_of(activation_type);
}

TensorView Decoder::experts_input(const ChunkState& state) const {
    return rows_in(state, 0, state.inputs.rows, family_.config.hidden_size);
}

TensorView Decoder::experts_sum(const ChunkState& state) const {
    const std::int64_t before = state.inputs.rows * part(family_.config.hidden_size);
    return rows_in(state, before, state.inputs.rows, family_.config.hidden_size);
}

// The rows of experts that are run at once, one's behind another's.
TensorView Decoder::expanded(const StageSpec& spec, std::int64_t cols, const ChunkState& state) const {
    const auto rows_of = [&](std::int64_t expert) {
        return std::ssize(state.routing->experts.at(static_cast<std::size_t>(expert)).rows);
    };
    std::int64_t first = 0;
    if (!spec.shared)
        for (std::int64_t other = spec.expert - spec.expert % experts_at_once_; other < spec.expert; ++other)
            first += rows_of(other);
    const std::int64_t before = 2 * state.inputs.rows * part(family_.config.hidden_size) + first * part(cols);
    return rows_in(state, before, rows_of(spec.expert), cols);
}

TensorView Decoder::mlp_input(std::int64_t layer, const ChunkState& state) const {
    return family_.has_experts(layer) ? experts_input(state) : state.inputs.cols_from(0, family_.config.hidden_size);
}

const StageSpec& Decoder::spec(std::int64_t layer, int stage) const {
    return family_.stages_of(layer).at(static_cast<std::size_t>(stage));
}

TensorView Decoder::stage_input(std::int64_t layer, int stage, const ChunkState& state) {
    const StageSpec& spec = this->spec(layer, stage);
    if (stage > 0 && stage == family_.attention_stages - 2)
        return state.inputs.cols_from(latent_begin(family_.config), spec.cols());
    if (spec.expert < 0) return state.inputs.cols_from(0, spec.cols());
    if (is_second_half(stage)) return expanded(spec, spec.cols(), state);
    if (spec.shared) return experts_input(state);
    const Routing::Expert& expert = state.routing->experts.at(static_cast<std::size_t>(spec.expert));
    const TensorView rows =
        expert_rows_.tensor(backend_.activation_type(), std::ssize(expert.rows), family_.config.hidden_size);
    backend_.embed(experts_input(state), expert.rows, rows, false);  // gathers rows
    return rows;
}

const LinearWeights& Decoder::linear(const LayerWeights& layer, int stage, std::size_t index) const {
    return layer.linears.at(spec(layer.layer, stage).linears.at(index).name);
}

void Decoder::norm(const LayerWeights::Norm& norm, TensorView inputs, TensorView output) {
    const auto epsilon = static_cast<float>(family_.config.norm_epsilon);
    if (family_.norm == NormKind::rms)
        backend_.rms_norm(inputs, norm.weight, epsilon, output);
    else
        backend_.layer_norm(inputs, norm.weight, norm.bias, epsilon, output);
}

void Decoder::project(const LinearWeights& linear, TensorView inputs, TensorView output, bool accumulate) {
    backend_.linear(inputs, linear.weight, linear.bias, output, accumulate);
}

void Decoder::normed_or_copied(const LayerWeights::Norm& weights, TensorView inputs, TensorView output) {
    if (weights.weight != nullptr)
        norm(weights, inputs, output);
    else
        backend_.scale(inputs, 1, output, false);
}

void Decoder::add_to_hidden(const LinearWeights& linear, TensorView inputs, const LayerWeights::Norm& output_norm,
                            ChunkState& state) {
    if (!adds_apart(family_)) return project(linear, inputs, state.hidden, true);
    // What was there last, queries or gates, has been used.
    const TensorView added = query_or_gate_.tensor(backend_.activation_type(), inputs.rows, state.hidden.cols);
    project(linear, inputs, added, false);
    if (output_norm.weight != nullptr) norm(output_norm, added, added);
    backend_.scale(added, static_cast<float>(family_.config.residual_multiplier), state.hidden, true);
}

void Decoder::project_parts(const LayerWeights& layer, int stage, std::span<const TensorView> outputs,
                            TensorView inputs) {
    const bool apart = spec(layer.layer, stage).linears.size() > 1;
    std::int64_t before = 0;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const LinearWeights& whole = linear(layer, stage, apart ? i : 0);
        const std::int64_t first = apart ? 0 : before;
        const float* bias = whole.bias == nullptr ? nullptr : whole.bias + first;
        project({whole.weight.rows_from(first, outputs[i].cols), bias}, inputs, outputs[i], false);
        before += outputs[i].cols;
    }
}

void Decoder::embed(const OuterWeights& outer, const ChunkTokens& chunk, ChunkState& state) {
    if (chunk.tokens() > max_tokens_)
        throw Failure("a chunk of {} tokens is larger than the {} that there is room for", chunk.tokens(), max_tokens_);
    for (const std::int32_t id : chunk.ids)
        if (id < 0 || id >= family_.config.vocab_size)
            throw InvalidInput("the token id {} is outside the model's vocabulary of {}", id,
                               family_.config.vocab_size);
    backend_.embed(outer.embedding, chunk.ids, state.hidden, false);
    if (family_.config.embedding_multiplier != 1)
        backend_.scale(state.hidden, static_cast<float>(family_.config.embedding_multiplier), state.hidden, false);
    if (family_.positions.empty()) return;
    std::vector<std::int32_t> entries;
    entries.reserve(chunk.ids.size());
    for (const std::int64_t position : positions(state)) {
        if (position >= family_.config.max_positions)
            throw InvalidInput("a sequence of {} tokens is longer than the model's {} positions", position + 1,
                               family_.config.max_positions);
        entries.push_back(static_cast<std::int32_t>(position + family_.position_offset));
    }
    backend_.embed(outer.positions, entries, state.hidden, true);
}

void Decoder::begin_layer(const LayerWeights& layer, ChunkState& state) {
    normed_or_copied(layer.input_norm, state.hidden, stage_input(layer.layer, 0, state));
}

void Decoder::run_stage(int stage, const LayerWeights& layer, ChunkState& state) {
    const bool has_experts = family_.has_experts(layer.layer);
    const auto inputs = [&](int of) { return stage_input(layer.layer, of, state); };
    const int last_of_attention = family_.attention_stages - 1;
    if (family_.waits(stage)) return;
    if (stage + 1 < last_of_attention) {
        compress(layer, state);
    } else if (stage < last_of_attention) {
        attend(layer, state);
    } else if (stage == last_of_attention) {
        add_to_hidden(linear(layer, stage, 0), inputs(stage), layer.attention_output_norm, state);
        normed_or_copied(layer.mlp_norm, state.hidden, mlp_input(layer.layer, state));
        if (has_experts) route(layer, state);
    } else if (has_experts) {
        run_expert(stage, layer, state);
    } else if (is_second_half(stage)) {
        add_to_hidden(linear(layer, stage, 0), inputs(stage), layer.mlp_output_norm, state);
    } else {
        expand(layer, stage, inputs(stage), inputs(stage + 1));
    }
}

void Decoder::run_layer(const LayerWeights& layer, ChunkState& state) {
    begin_layer(layer, state);
    for (int stage = 0; stage < family_.stage_count(layer.layer); ++stage)
        run_stage(stage, layer, state);
}

std::vector<float> Decoder::scores(const TensorView& weight, const ChunkState& state) {
    const TensorView product = query_or_gate_.tensor(DType::float32, state.hidden.rows, weight.rows);
    backend_.linear(experts_input(state), weight, nullptr, product, false);
    std::vector<float> values(static_cast<std::size_t>(product.rows * product.cols));
    backend_.copy_to_host(values.data(), product.data, values.size() * sizeof(float));
    return values;
}

void Decoder::route(const LayerWeights& layer, ChunkState& state) {
    const ModelConfig& config = family_.config;
    const auto scores_of = [&](const TensorView& weight) {
        std::vector<float> values = scores(weight, state);
        if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); }))
            throw Failure("layer {}: its router's logits are not finite", layer.layer);
        return values;
    };
    const std::vector<float> logits = scores_of(layer.router);
    std::vector<float> bias(layer.router_bias == nullptr ? 0 : static_cast<std::size_t>(config.experts));
    if (!bias.empty()) backend_.copy_to_host(bias.data(), layer.router_bias, bias.size() * sizeof(float));
    if (!state.routing) state.routing = std::make_shared<Routing>();
    state.routing->experts = route_rows(logits, bias, config);
    if (config.shared_intermediate_size > 0) {
        Routing::Expert all;
        all.rows.resize(static_cast<std::size_t>(state.hidden.rows));
        std::iota(all.rows.begin(), all.rows.end(), 0);
        all.weights.assign(all.rows.size(), 1.0F);
        if (layer.shared_gate.data != nullptr) {
            all.weights = scores_of(layer.shared_gate);
            std::ranges::transform(all.weights, all.weights.begin(), sigmoid);
        }
        state.routing->experts.push_back(std::move(all));
    }
    backend_.scale(experts_input(state), 0, experts_sum(state), false);
}

// What experts make is added up apart, in their order, and then to the hidden states.
void Decoder::run_expert(int stage, const LayerWeights& layer, ChunkState& state) {
    const StageSpec& spec = this->spec(layer.layer, stage);
    const Routing::Expert& expert = state.routing->experts.at(static_cast<std::size_t>(spec.expert));
    const TensorView inputs = stage_input(layer.layer, stage, state);
    if (!is_second_half(stage)) {
        const std::int64_t cols = this->spec(layer.layer, stage + 1).cols();
        return expand(layer, stage, inputs, expanded(spec, cols, state));
    }
    const TensorView output = expert_rows_.tensor(backend_.activation_type(), inputs.rows, family_.config.hidden_size);
    project(linear(layer, stage, 0), inputs, output, false);
    backend_.scatter_rows(output, expert.rows, expert.weights, experts_sum(state));
    if (stage + 1 == family_.stage_count(layer.layer)) backend_.scale(experts_sum(state), 1, state.hidden, true);
}

Decoder::Attended Decoder::project_heads(const LayerWeights& layer, ChunkState& state) {
    const ModelConfig& config = family_.config;
    const DType type = backend_.activation_type();
    const std::int64_t tokens = state.hidden.rows;
    const std::int64_t query_cols = config.heads * config.head_dim;
    const TensorView projected =
        query_or_gate_.tensor(type, tokens, config.gated_attention ? 2 * query_cols : query_cols);
    const TensorView key = key_or_up_.tensor(type, tokens, config.key_value_heads * config.head_dim);
    const TensorView value = value_.tensor(type, tokens, config.key_value_heads * config.head_dim);
    project_parts(layer, 0, std::array{projected, key, value}, stage_input(layer.layer, 0, state));

    // A head a row: the views have no gaps.
    const auto rows_of_heads = [&](TensorView all, std::int64_t cols) {
        return TensorView(all.data, type, all.rows * all.cols / cols, cols);
    };
    TensorView query = projected;
    if (config.gated_attention) {
        query = TensorView(key_or_up_.tensor(type, tokens, key_part(config)).row(tokens), type, tokens, query_cols);
        backend_.scale(rows_of_heads(projected, 2 * config.head_dim).cols_from(0, config.head_dim), 1,
                       rows_of_heads(query, config.head_dim), false);
    }
    const auto epsilon = static_cast<float>(config.norm_epsilon);
    const auto norm_heads = [&](const LayerWeights::Norm& norm, TensorView all) {
        if (norm.weight == nullptr) return;
        const TensorView heads = family_.query_norm_of_all_heads ? all : rows_of_heads(all, config.head_dim);
        backend_.rms_norm(heads, norm.weight, epsilon, heads);
    };
    norm_heads(layer.query_norm, query);
    norm_heads(layer.key_norm, key);
    rotate(layer.layer, query, config.head_dim, state);
    rotate(layer.layer, key, config.head_dim, state);
    return {query, key, value};
}

void Decoder::compress(const LayerWeights& layer, ChunkState& state) {
    const ModelConfig& config = family_.config;
    const DType type = backend_.activation_type();
    const std::int64_t rank = config.latent.key_value_rank;
    const TensorView inputs = stage_input(layer.layer, 0, state);
    const auto epsilon = static_cast<float>(LatentAttention::norm_epsilon);
    // What is made lies where the inputs do, so both go by way of other memory.
    const TensorView keys = value_.tensor(type, inputs.rows, rank + config.rotary_dim);
    project(linear(layer, 0, 1), inputs, keys, false);
    if (config.latent.query_rank > 0) {
        const TensorView queries = query_or_gate_.tensor(type, inputs.rows, config.latent.query_rank);
        project(linear(layer, 0, 0), inputs, queries, false);
        backend_.rms_norm(queries, layer.query_norm.weight, epsilon, state.inputs.cols_from(0, queries.cols));
    }
    const std::int64_t begin = latent_begin(config);
    backend_.rms_norm(keys.cols_from(0, rank), layer.key_norm.weight, epsilon, state.inputs.cols_from(begin, rank));
    const TensorView turning = state.inputs.cols_from(begin + rank, config.rotary_dim);
    backend_.scale(keys.cols_from(rank, config.rotary_dim), 1, turning, false);
    rotate(layer.layer, turning, config.rotary_dim, state);
}

Decoder::Attended Decoder::expand_latent(const LayerWeights& layer, ChunkState& state) {
    const ModelConfig& config = family_.config;
    const DType type = backend_.activation_type();
    const std::int64_t tokens = state.hidden.rows;
    const std::int64_t unrotated = config.unrotated_dim();
    const int stage = family_.attention_stages - 2;
    const TensorView query = query_or_gate_.tensor(type, tokens, config.heads * config.head_dim);
    const TensorView source = state.inputs.cols_from(0, query_source(config));
    project(linear(layer, stage - 1, 0), source, query, false);
    rotate(layer.layer, query.cols_from(unrotated, query.cols - unrotated), config.head_dim, state);

    // Of each head what does not turn of its key, then its value.
    const std::int64_t both = unrotated + config.value_size();
    const TensorView keys_and_values = value_.tensor(type, tokens, config.heads * both);
    project(linear(layer, stage, 0), stage_input(layer.layer, stage, state), keys_and_values, false);
    const TensorView key = key_or_up_.tensor(type, tokens, config.heads * config.head_dim);
    const auto heads_of = [&](TensorView all, std::int64_t cols) {
        return TensorView(all.data, type, tokens * config.heads, cols).cols_from(0, unrotated);
    };
    backend_.scale(heads_of(keys_and_values, both), 1, heads_of(key, config.head_dim), false);
    const TensorView turning =
        state.inputs.cols_from(latent_begin(config) + config.latent.key_value_rank, config.rotary_dim);
    for (std::int64_t head = 0; head < config.heads; ++head)
        backend_.scale(turning, 1, key.cols_from(head * config.head_dim + unrotated, config.rotary_dim), false);
    return {query, key, keys_and_values.cols_from(unrotated, keys_and_values.cols - unrotated)};
}

// Query, key, value → what the heads gather, which is the next stage's input.
void Decoder::attend(const LayerWeights& layer, ChunkState& state) {
    const ModelConfig& config = family_.config;
    if (config.is_recurrent(layer.layer))
        return config.has_delta() ? attend_linearly(layer, state) : convolve_between_gates(layer, state);
    const Attended heads = config.has_latent() ? expand_latent(layer, state) : project_heads(layer, state);
    const TensorView output = stage_input(layer.layer, family_.attention_stages - 1, state);
    gather(heads, attention_shape(config, layer.layer), output, state);
    if (!config.gated_attention) return;
    const std::int64_t dim = config.head_dim;
    const TensorView projected = query_or_gate_.tensor(output.type, output.rows, 2 * config.heads * dim);
    for (std::int64_t head = 0; head < config.heads; ++head) {
        const TensorView gathered = output.cols_from(head * dim, dim);
        backend_.gated_activation(Activation::sigmoid, projected.cols_from((2 * head + 1) * dim, dim), gathered,
                                  gathered);
    }
}

void Decoder::rotate(std::int64_t layer, TensorView heads, std::int64_t head_dim, const ChunkState& state) {
    const ModelConfig& config = family_.config;
    const auto index = static_cast<std::size_t>(layer);
    if (!config.rotary.at(index)) return;
    const bool window = config.windows.at(index) > 0;
    const std::span<const float> frequencies = window ? window_frequencies_ : frequencies_;
    const auto factor = static_cast<float>((window ? config.window_rope : config.rope).attention_factor);
    if (state.cache == nullptr && state.prefixes.empty())
        backend_.rotary(heads, head_dim, state.offsets, frequencies, factor, config.rotary_pairs);
    else
        backend_.rotary_at(heads, head_dim, positions(state), frequencies, factor, config.rotary_pairs);
}

// Attention of whole sequences, of sequences that share prefixes, or over a cache.
void Decoder::gather(const Attended& heads, const AttentionShape& shape, TensorView output, ChunkState& state) {
    const auto& [query, key, value] = heads;
    if (state.cache == nullptr && state.prefixes.empty()) {
        backend_.attention(query, key, value, state.offsets, shape, output);
    } else if (state.cache == nullptr) {
        std::vector<CachedSequence> sequences;
        for (std::size_t sequence = 0; sequence + 1 < state.offsets.size(); ++sequence) {
            const RowRange rows{state.offsets[sequence], state.offsets[sequence + 1]};
            sequences.push_back({rows, state.prefixes[sequence], rows});
        }
        backend_.cached_attention(query, key, value, sequences, shape, output);
    } else {
        const CacheStep& cache = *state.cache;
        const auto keep = [](const CachedSequence& sequence, TensorView from, TensorView to, Backend& backend) {
            const std::int64_t count = sequence.queries.size();
            backend.scale(from.rows_from(sequence.queries.begin, count), 1,
                          to.rows_from(sequence.own.end - count, count), false);
        };
        for (const CachedSequence& sequence : cache.sequences) {
            keep(sequence, key, cache.keys, backend_);
            keep(sequence, value, cache.values, backend_);
        }
        backend_.cached_attention(query, cache.keys, cache.values, cache.sequences, shape, output);
    }
}

// The first half of the MLP, with its activation → the input of the second.
void Decoder::expand(const LayerWeights& layer, int stage, TensorView inputs, TensorView output) {
    const TensorView gate = query_or_gate_.tensor(backend_.activation_type(), inputs.rows, output.cols);
    if (!family_.gated) {
        project(linear(layer, stage, 0), inputs, gate, false);
        backend_.activation(family_.config.activation, gate, output);
        return;
    }
    const TensorView up = key_or_up_.tensor(backend_.activation_type(), inputs.rows, output.cols);
    project_parts(layer, stage, std::array{gate, up}, inputs);
    backend_.gated_activation(family_.config.activation, gate, up, output);
}

void Decoder::logits(const OuterWeights& outer, const ChunkState& state, std::span<const std::int32_t> rows,
                     TensorView logits) {
    const auto count = static_cast<std::int64_t>(rows.size());
    if (count > max_logit_rows)
        throw Failure("{} rows of logits were asked for at once, more than {}", count, max_logit_rows);
    const TensorView selected = query_or_gate_.tensor(backend_.activation_type(), count, family_.config.hidden_size);
    backend_.embed(state.hidden, rows, selected, false);  // gathers rows
    norm(outer.final_norm, selected, selected);
    backend_.linear(selected, outer.lm_head, nullptr, logits, false);
    if (family_.config.logits_scaling != 1)
        backend_.scale(logits, static_cast<float>(1 / family_.config.logits_scaling), logits, false);
    if (family_.config.logits_cap > 0) backend_.soft_cap(logits, static_cast<float>(family_.config.logits_cap));
}

}  // namespace fairgptq
