#include "model/generate.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "support/machine.hpp"

namespace fairgptq {
namespace {

/// Rows of a sequence that a convolution has to see again.
std::int64_t kept_rows(const ModelConfig& config) {
    return config.has_recurrent_layers() ? config.convolution_width - 1 : 0;
}

/// Where layers would be kept, in bytes.
double free_memory(const Backend& backend) {
    if (const auto of_device = backend.available()) return static_cast<double>(*of_device);
    return available_memory();
}

/// Columns of a layer's cache: keys and values.
std::array<std::int64_t, 2> cache_cols(const ModelConfig& config) {
    return {config.key_value_heads * config.head_dim, Decoder::attention_shape(config, 0).value_cols()};
}

/// What a sequence takes in the caches of all layers.
struct CacheBytes {
    double of_position = 0;  // of each of its tokens
    double of_sequence = 0;  // however long it is

    explicit CacheBytes(const ForwardModel& model) {
        const ModelConfig& config = model.family.config;
        const auto [keys, values] = cache_cols(config);
        const auto size = static_cast<double>(size_of(model.backend.activation_type()));
        const auto linear = static_cast<double>(std::ranges::count(config.recurrent, true));
        of_position = (static_cast<double>(config.layers) - linear) * static_cast<double>(keys + values) * size;
        of_sequence = linear * (static_cast<double>(kept_rows(config) * config.convolved_cols()) * size +
                                static_cast<double>(config.delta.state_elements()) * sizeof(float));
    }
};

/// A model's layers, gone through once for every token.
class Layers {
  public:
    Layers(const ForwardModel& model, int sharing) : model_(model) {
        const std::int64_t layers = model.family.config.layers;
        const std::size_t bytes =
            layer_bytes(model.family, model.backend.activation_type()) * static_cast<std::size_t>(layers);
        if (static_cast<double>(bytes) > free_memory(model.backend) / sharing / 2) return;
        read(ReadAhead::to_keep, [&](LayerWeights layer) { resident_.push_back(std::move(layer)); });
    }

    template <class Visit>
    void for_each(const Visit& visit) const {
        if (resident_.empty()) {
            read(ReadAhead::to_device, [&](const LayerWeights& layer) {
                visit(layer);
                model_.backend.synchronize();  // before the layer's memory goes
            });
        } else {
            for (const LayerWeights& layer : resident_)
                visit(layer);
        }
    }

  private:
    template <class Take>
    void read(ReadAhead ahead, const Take& take) const {
        LayerPrefetcher layers(model_.backend, model_.family, model_.checkpoint, 0, model_.family.config.layers, ahead,
                               {}, model_.override_weights.replaces);
        for (std::int64_t index = 0; index < model_.family.config.layers; ++index) {
            LayerWeights layer = layers.next();
            if (model_.override_weights.layer) model_.override_weights.layer(layer);
            take(std::move(layer));
        }
    }
    const ForwardModel& model_;
    std::vector<LayerWeights> resident_;
};

/// Prompts that are continued together, and all that they hold on the device.
class Batch {
  public:
    Batch(const ForwardModel& model, const OuterWeights& outer, std::span<const std::vector<std::int32_t>> prompts,
          std::int64_t tokens)
        : model_(model),
          outer_(outer),
          decoder_(model.backend, model.family,
                   rows_of(prompts) + std::ssize(prompts) * kept_rows(model.family.config)),
          generated_(prompts.size()) {
        const ModelConfig& config = model.family.config;
        const std::int64_t rows = rows_of(prompts);
        widest_ = Decoder::widest_input(model.family);
        hidden_ = room(rows, config.hidden_size);
        inputs_ = room(rows, widest_);
        logits_ = room(Decoder::max_logit_rows, config.vocab_size);
        chunk_.offsets = {0};
        std::int64_t cache_rows = 0;
        for (const std::vector<std::int32_t>& prompt : prompts) {
            chunk_.ids.insert(chunk_.ids.end(), prompt.begin(), prompt.end());
            chunk_.offsets.push_back(chunk_.tokens());
            cached_.push_back({cache_rows, cache_rows});
            cache_rows += static_cast<std::int64_t>(prompt.size()) + tokens;
        }
        const std::int64_t sequences = std::ssize(prompts);
        for (std::int64_t layer = 0; layer < config.layers; ++layer) {
            LayerCache& cache = caches_.emplace_back();
            if (config.is_recurrent(layer)) {
                cache.states = model.backend.allocate(
                    static_cast<std::size_t>(sequences * config.delta.state_elements()) * sizeof(float));
                cache.history = room(sequences * kept_rows(config), config.convolved_cols());
                for (const Buffer* buffer : {&cache.states, &cache.history})
                    model.backend.zero(buffer->data(), buffer->bytes());
            } else {
                cache.keys = room(cache_rows, cols_[0]);
                cache.values = room(cache_rows, cols_[1]);
            }
        }
        cache_rows_ = cache_rows;
    }

    /// Runs the chunk (the prompts, then the tokens that followed last), and adds each sequence's next token.
    void step(const Layers& layers) {
        Backend& backend = model_.backend;
        CacheStep cache;
        std::vector<std::int32_t> last_rows;
        for (std::size_t sequence = 0; sequence < cached_.size(); ++sequence) {
            const RowRange queries{chunk_.offsets[sequence], chunk_.offsets[sequence + 1]};
            RowRange& own = cached_[sequence];
            for (std::int64_t token = 0; token < queries.size(); ++token)
                cache.positions.push_back(own.size() + token);
            own.end += queries.size();
            cache.sequences.push_back({queries, {}, own});
            last_rows.push_back(static_cast<std::int32_t>(queries.end - 1));
        }
        const DType type = backend.activation_type();
        ChunkState state{hidden_.tensor(type, chunk_.tokens(), model_.family.config.hidden_size),
                         inputs_.tensor(type, chunk_.tokens(), widest_),
                         chunk_.offsets,
                         {},
                         &cache};
        decoder_.embed(outer_, chunk_, state);
        layers.for_each([&](const LayerWeights& layer) {
            const ModelConfig& config = model_.family.config;
            const LayerCache& kept = caches_[static_cast<std::size_t>(layer.layer)];
            if (config.is_recurrent(layer.layer)) {
                cache.states = kept.states.as<float>();
                cache.history =
                    kept.history.tensor(type, std::ssize(cached_) * kept_rows(config), config.convolved_cols());
            } else {
                cache.keys = kept.keys.tensor(type, cache_rows_, cols_[0]);
                cache.values = kept.values.tensor(type, cache_rows_, cols_[1]);
            }
            decoder_.run_layer(layer, state);
        });
        take_best(state, last_rows);
    }

    std::vector<std::vector<std::int32_t>> generated() && { return std::move(generated_); }

  private:
    static std::int64_t rows_of(std::span<const std::vector<std::int32_t>> prompts) {
        return std::accumulate(
            prompts.begin(), prompts.end(), std::int64_t{0},
            [](std::int64_t sum, const auto& prompt) { return sum + static_cast<std::int64_t>(prompt.size()); });
    }
    Buffer room(std::int64_t rows, std::int64_t cols) const {
        return model_.backend.allocate(static_cast<std::size_t>(rows * cols) *
                                       size_of(model_.backend.activation_type()));
    }

    void take_best(const ChunkState& state, const std::vector<std::int32_t>& last_rows) {
        std::vector<std::int32_t> best(last_rows.size());
        const std::vector<std::int32_t> any(last_rows.size(), 0);
        std::vector<float> scores(last_rows.size());
        for (std::size_t first = 0; first < last_rows.size(); first += Decoder::max_logit_rows) {
            const std::size_t count = std::min<std::size_t>(Decoder::max_logit_rows, last_rows.size() - first);
            const TensorView logits = logits_.tensor(model_.backend.activation_type(), static_cast<std::int64_t>(count),
                                                     model_.family.config.vocab_size);
            decoder_.logits(outer_, state, std::span(last_rows).subspan(first, count), logits);
            model_.backend.token_log_probabilities(logits, std::span(any).subspan(first, count),
                                                   std::span(scores).subspan(first, count),
                                                   std::span(best).subspan(first, count));
        }
        for (std::size_t sequence = 0; sequence < best.size(); ++sequence)
            generated_[sequence].push_back(best[sequence]);
        chunk_.ids = best;
        chunk_.offsets.resize(best.size() + 1);
        std::iota(chunk_.offsets.begin(), chunk_.offsets.end(), std::int64_t{0});
    }

    const ForwardModel& model_;
    const OuterWeights& outer_;
    std::array<std::int64_t, 2> cols_ = cache_cols(model_.family.config);
    Decoder decoder_;
    ChunkTokens chunk_;
    std::vector<RowRange> cached_;  // each sequence's rows of the cache that are filled
    std::int64_t cache_rows_ = 0, widest_ = 0;
    Buffer hidden_, inputs_, logits_;
    struct LayerCache {
        Buffer keys, values, states, history;  // the first two or the others
    };
    std::vector<LayerCache> caches_;  // [layers]
    std::vector<std::vector<std::int32_t>> generated_;
};

}  // namespace

std::vector<std::vector<std::int32_t>> generate_greedily(const ForwardModel& model,
                                                         std::span<const std::vector<std::int32_t>> prompts,
                                                         std::int64_t tokens,
                                                         const std::function<void(double)>& progress, int sharing,
                                                         std::int64_t batch_tokens) {
    std::vector<std::vector<std::int32_t>> all;
    if (prompts.empty()) return all;
    const CacheBytes bytes(model);
    double room = free_memory(model.backend) / sharing / 4;
    if (room <= 0) room = std::numeric_limits<double>::infinity();  // the system does not say
    const OuterWeights outer = read_outer(model.backend, model.family, model.checkpoint);
    if (model.override_weights.outer) model.override_weights.outer(outer);
    const Layers layers(model, sharing);
    for (std::size_t first = 0; first < prompts.size();) {
        std::size_t count = 0;
        std::int64_t positions = 0;
        while (first + count < prompts.size()) {
            positions += static_cast<std::int64_t>(prompts[first + count].size()) + tokens;
            const double needed =
                static_cast<double>(positions) * bytes.of_position + static_cast<double>(count + 1) * bytes.of_sequence;
            if (count > 0 && (positions > batch_tokens || needed > room)) break;
            ++count;
        }
        Batch batch(model, outer, prompts.subspan(first, count), tokens);
        for (std::int64_t token = 0; token < tokens; ++token) {
            batch.step(layers);
            if (progress)
                progress((static_cast<double>(first) +
                          static_cast<double>(count) * static_cast<double>(token + 1) / static_cast<double>(tokens)) /
                         static_cast<double>(prompts.size()));
        }
        for (auto& continuation : std::move(batch).generated())
            all.push_back(std::move(continuation));
        first += count;
    }
    return all;
}

}  // namespace fairgptq
