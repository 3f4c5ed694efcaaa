// A whole decoder-only transformer as plain loops in float64, one sequence at a time, written from the models' own
// descriptions and not from the program's: what every family's forward pass is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "model/config.hpp"
#include "reference/activation.hpp"

namespace fairgptq::reference {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

class Transformer {
  public:
    /// @param tensors by their names in the model's file, row after row
    Transformer(ModelConfig config, std::map<std::string, Row> tensors)
        : config_(std::move(config)), tensors_(std::move(tensors)), opt_(config_.model_type == "opt") {}

    struct Result {
        Rows logits;                         // a row per token
        std::map<std::string, Rows> inputs;  // of every linear, by the linear's name
    };

    /// One sequence from its start.
    Result run(std::span<const std::int32_t> ids) const {
        Result result;
        const std::string top = opt_ ? "model.decoder." : "model.";
        Rows hidden;
        for (std::size_t t = 0; t < ids.size(); ++t) {
            hidden.push_back(row_of(top + "embed_tokens.weight", static_cast<std::size_t>(ids[t])));
            if (opt_) add(hidden.back(), row_of(top + "embed_positions.weight", t + 2));
        }
        for (std::int64_t layer = 0; layer < config_.layers; ++layer)
            block(top + "layers." + std::to_string(layer) + ".", config_.windows[static_cast<std::size_t>(layer)],
                  hidden, result.inputs);
        const std::string head = config_.tied_embeddings ? top + "embed_tokens" : "lm_head";
        for (const Row& x : hidden)
            result.logits.push_back(linear(head, norm(top + (opt_ ? "final_layer_norm" : "norm"), x)));
        return result;
    }

  private:
    void block(const std::string& name, std::int64_t window, Rows& hidden, std::map<std::string, Rows>& inputs) const {
        const auto dim = static_cast<std::size_t>(config_.head_dim);
        const std::string attention = name + "self_attn.";
        const std::string output = attention + (opt_ ? "out_proj" : "o_proj");
        Rows query, key, value;
        for (std::size_t t = 0; t < hidden.size(); ++t) {
            const Row x = norm(name + (opt_ ? "self_attn_layer_norm" : "input_layernorm"), hidden[t]);
            for (const char* linear_name : {"q_proj", "k_proj", "v_proj"})
                inputs[attention + linear_name].push_back(x);
            query.push_back(heads(attention + "q", linear(attention + "q_proj", x), t));
            key.push_back(heads(attention + "k", linear(attention + "k_proj", x), t));
            value.push_back(linear(attention + "v_proj", x));
        }
        const std::size_t query_heads = query[0].size() / dim;
        const std::size_t sharing = query_heads / (key[0].size() / dim);
        for (std::size_t t = 0; t < hidden.size(); ++t) {
            Row gathered(query[t].size(), 0);
            for (std::size_t head = 0; head < query_heads; ++head) {
                const std::size_t from = head * dim;
                const std::size_t key_from = head / sharing * dim;
                std::vector<double> weight(t + 1, 0);
                double sum = 0;
                for (std::size_t s = 0; s <= t; ++s) {
                    if (window > 0 && static_cast<std::int64_t>(t - s) >= window) continue;
                    double score = 0;
                    for (std::size_t i = 0; i < dim; ++i)
                        score += query[t][from + i] * key[s][key_from + i];
                    sum += weight[s] = std::exp(score / std::sqrt(static_cast<double>(dim)));
                }
                for (std::size_t s = 0; s <= t; ++s)
                    for (std::size_t i = 0; i < dim; ++i)
                        gathered[from + i] += weight[s] / sum * value[s][key_from + i];
            }
            inputs[output].push_back(gathered);
            add(hidden[t], linear(output, gathered));
        }
        for (Row& h : hidden)
            mlp(name, h, inputs);
    }

    void mlp(const std::string& name, Row& hidden, std::map<std::string, Rows>& inputs) const {
        if (opt_) {
            const Row x = norm(name + "final_layer_norm", hidden);
            inputs[name + "fc1"].push_back(x);
            Row wide = linear(name + "fc1", x);
            for (double& v : wide)
                v = activation(config_.activation, v);
            inputs[name + "fc2"].push_back(wide);
            add(hidden, linear(name + "fc2", wide));
            return;
        }
        const Row x = norm(name + "post_attention_layernorm", hidden);
        inputs[name + "mlp.gate_proj"].push_back(x);
        inputs[name + "mlp.up_proj"].push_back(x);
        Row wide = linear(name + "mlp.gate_proj", x);
        const Row up = linear(name + "mlp.up_proj", x);
        for (std::size_t i = 0; i < wide.size(); ++i)
            wide[i] = activation(config_.activation, wide[i]) * up[i];
        inputs[name + "mlp.down_proj"].push_back(wide);
        add(hidden, linear(name + "mlp.down_proj", wide));
    }

    /// Per-head norm where the model has one, then rotation by the position.
    Row heads(const std::string& name, Row x, std::size_t position) const {
        const auto dim = static_cast<std::size_t>(config_.head_dim);
        for (std::size_t from = 0; from < x.size(); from += dim) {
            Row head(x.begin() + static_cast<std::ptrdiff_t>(from),
                     x.begin() + static_cast<std::ptrdiff_t>(from + dim));
            if (tensors_.contains(name + "_norm.weight")) head = norm(name + "_norm", head);
            for (std::size_t i = 0; i < dim; ++i)
                x[from + i] = head[i];
            if (opt_) continue;
            for (std::size_t i = 0; i < dim / 2; ++i) {
                const double angle = static_cast<double>(position) * frequency(i);
                x[from + i] = head[i] * std::cos(angle) - head[i + dim / 2] * std::sin(angle);
                x[from + i + dim / 2] = head[i + dim / 2] * std::cos(angle) + head[i] * std::sin(angle);
            }
        }
        return x;
    }

    double frequency(std::size_t i) const {
        const RopeSettings& rope = config_.rope;
        const double plain =
            1 / std::pow(rope.theta, 2 * static_cast<double>(i) / static_cast<double>(config_.head_dim));
        if (rope.type == "linear") return plain / rope.factor;
        if (rope.type != "llama3") return plain;
        const double wavelength = 2 * std::numbers::pi / plain;
        const double context = rope.original_max_position_embeddings;
        if (wavelength < context / rope.high_freq_factor) return plain;
        if (wavelength > context / rope.low_freq_factor) return plain / rope.factor;
        const double smooth =
            (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        return (1 - smooth) * plain / rope.factor + smooth * plain;
    }

    Row norm(const std::string& name, const Row& x) const {
        const Row& weight = tensors_.at(name + ".weight");
        const auto size = static_cast<double>(x.size());
        double mean = 0;
        if (opt_)
            for (const double v : x)
                mean += v / size;
        double variance = 0;
        for (const double v : x)
            variance += (v - mean) * (v - mean) / size;
        Row result;
        for (std::size_t i = 0; i < x.size(); ++i)
            result.push_back((x[i] - mean) / std::sqrt(variance + config_.norm_epsilon) * weight[i] +
                             (opt_ ? tensors_.at(name + ".bias")[i] : 0));
        return result;
    }

    Row linear(const std::string& name, const Row& x) const {
        const Row& weight = tensors_.at(name + ".weight");
        const auto bias = tensors_.find(name + ".bias");
        Row result = bias != tensors_.end() ? bias->second : Row(weight.size() / x.size(), 0);
        for (std::size_t row = 0; row < result.size(); ++row)
            for (std::size_t col = 0; col < x.size(); ++col)
                result[row] += weight[row * x.size() + col] * x[col];
        return result;
    }

    Row row_of(const std::string& name, std::size_t index) const {
        const auto begin = tensors_.at(name).begin() +
                           static_cast<std::ptrdiff_t>(index * static_cast<std::size_t>(config_.hidden_size));
        return {begin, begin + config_.hidden_size};
    }

    static void add(Row& to, const Row& other) {
        for (std::size_t i = 0; i < to.size(); ++i)
            to[i] += other[i];
    }

    ModelConfig config_;
    std::map<std::string, Row> tensors_;
    bool opt_;
};

}  // namespace fairgptq::reference
