// A whole decoder-only transformer as plain loops in float64, one sequence at a time, written from the models' own
// descriptions and not from the program's: what every family's forward pass is compared with.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <numbers>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "model/config.hpp"
#include "reference/activation.hpp"
#include "reference/delta_rule.hpp"

namespace fairgptq::reference {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

class Transformer {
  public:
    /// @param tensors by their names in the model's file, row after row
    Transformer(ModelConfig config, std::map<std::string, Row> tensors)
        : config_(std::move(config)),
          tensors_(std::move(tensors)),
          opt_(config_.model_type == "opt"),
          gemma_(config_.model_type.starts_with("gemma")),
          qwen3_next_(config_.model_type == "qwen3_next" || config_.model_type.starts_with("qwen3_5")),
          lfm2_(config_.model_type == "lfm2"),
          norms_around_(gemma_ && config_.model_type != "gemma"),
          olmo_(config_.model_type.starts_with("olmo")),
          minimax_(config_.model_type == "minimax_m2"),
          mixtral_(config_.model_type == "mixtral" || minimax_),
          norms_behind_(config_.model_type == "olmo2" || config_.model_type == "olmo3" ||
                        config_.model_type == "exaone4"),
          phi_(config_.model_type == "phi3"),
          glm_(config_.model_type == "glm4") {}

    struct Result {
        Rows logits;                         // a row per token
        std::map<std::string, Rows> inputs;  // of every linear, by the linear's name
    };

    /// One sequence from its start.
    Result run(std::span<const std::int32_t> ids) const {
        Result result;
        const bool inner = config_.architecture.ends_with("ForConditionalGeneration");  // beside what sees pictures
        const std::string top = opt_                   ? "model.decoder."
                                : inner && qwen3_next_ ? "model.language_model."
                                : inner                ? "language_model.model."
                                                       : "model.";
        Rows hidden;
        for (std::size_t t = 0; t < ids.size(); ++t) {
            hidden.push_back(row_of(top + "embed_tokens.weight", static_cast<std::size_t>(ids[t])));
            for (double& value : hidden.back())
                value *= gemma_ ? std::sqrt(static_cast<double>(config_.hidden_size)) : config_.embedding_multiplier;
            if (opt_) add(hidden.back(), row_of(top + "embed_positions.weight", t + 2));
        }
        for (std::int64_t layer = 0; layer < config_.layers; ++layer)
            block(static_cast<std::size_t>(layer), top + "layers." + std::to_string(layer) + ".", hidden,
                  result.inputs);
        const std::string head = config_.tied_embeddings ? top + "embed_tokens"
                                 : inner && !qwen3_next_ ? "language_model.lm_head"
                                                         : "lm_head";
        for (const Row& x : hidden) {
            result.logits.push_back(linear(head, norm(top + (opt_    ? "final_layer_norm"
                                                             : lfm2_ ? "embedding_norm"
                                                                     : "norm"),
                                                      x)));
            for (double& value : result.logits.back())
                value = capped(value / config_.logits_scaling, config_.logits_cap);
        }
        return result;
    }

  private:
    void block(std::size_t layer, const std::string& name, Rows& hidden, std::map<std::string, Rows>& inputs) const {
        if (tensors_.contains(name + "linear_attn.A_log"))
            linear_attention(name, hidden, inputs);
        else if (tensors_.contains(name + "conv.conv.weight"))
            gated_convolution(name, hidden, inputs);
        else
            attention(layer, name, hidden, inputs);
        for (Row& h : hidden)
            mlp(name, h, inputs);
    }

    /// Gated DeltaNet (arXiv 2412.06464): a convolution over the last tokens, then the delta rule, head by head.
    void linear_attention(const std::string& name, Rows& hidden, std::map<std::string, Rows>& inputs) const {
        const std::string attention = name + "linear_attn.";
        const DeltaShape& shape = config_.delta;
        const auto key_dim = static_cast<std::size_t>(shape.key_dim);
        const auto value_dim = static_cast<std::size_t>(shape.value_dim);
        const auto key_heads = static_cast<std::size_t>(shape.key_heads);
        const auto value_heads = static_cast<std::size_t>(shape.value_heads);
        const std::size_t sharing = value_heads / key_heads;
        const Row& taps = tensors_.at(attention + "conv1d.weight");
        const auto width = static_cast<std::size_t>(config_.convolution_width);
        std::vector<DeltaHead> states(value_heads, DeltaHead(key_dim, value_dim));
        Rows before;
        for (Row& h : hidden) {
            const Row x = norm(name + "input_layernorm", h);
            Row mixed, output_gates, b, a;
            if (tensors_.contains(attention + "in_proj_qkv.weight")) {
                for (const char* linear_name : {"in_proj_qkv", "in_proj_z"})
                    inputs[attention + linear_name].push_back(x);
                mixed = linear(attention + "in_proj_qkv", x);
                output_gates = linear(attention + "in_proj_z", x);
                b = linear(attention + "in_proj_b", x);
                a = linear(attention + "in_proj_a", x);
            } else {  // of each key head its query, key, values and output gates; and b and a of its values
                inputs[attention + "in_proj_qkvz"].push_back(x);
                const Row all = linear(attention + "in_proj_qkvz", x), both = linear(attention + "in_proj_ba", x);
                const std::size_t values = sharing * value_dim;
                const std::size_t of_head = 2 * (key_dim + values);
                const auto gather = [](const Row& from, std::size_t heads, std::size_t step, std::size_t first,
                                       std::size_t count, Row& to) {
                    for (std::size_t head = 0; head < heads; ++head)
                        for (std::size_t i = 0; i < count; ++i)
                            to.push_back(from[head * step + first + i]);
                };
                gather(all, key_heads, of_head, 0, key_dim, mixed);
                gather(all, key_heads, of_head, key_dim, key_dim, mixed);
                gather(all, key_heads, of_head, 2 * key_dim, values, mixed);
                gather(all, key_heads, of_head, 2 * key_dim + values, values, output_gates);
                gather(both, key_heads, 2 * sharing, 0, sharing, b);
                gather(both, key_heads, 2 * sharing, sharing, sharing, a);
            }
            before.push_back(mixed);
            for (std::size_t channel = 0; channel < mixed.size(); ++channel) {
                double sum = 0;
                for (std::size_t back = 0; back < std::min(width, before.size()); ++back)
                    sum += taps[channel * width + width - 1 - back] * before[before.size() - 1 - back][channel];
                mixed[channel] = activation(Activation::silu, sum);
            }
            Row gathered;
            for (std::size_t head = 0; head < value_heads; ++head) {
                const std::size_t key_head = head / sharing;
                const Row made =
                    norm_of_head(attention + "norm",
                                 states[head].token(part(mixed, key_head * key_dim, key_dim),
                                                    part(mixed, (key_heads + key_head) * key_dim, key_dim),
                                                    part(mixed, 2 * key_heads * key_dim + head * value_dim, value_dim),
                                                    b[head], a[head], tensors_.at(attention + "A_log")[head],
                                                    tensors_.at(attention + "dt_bias")[head]));
                for (std::size_t i = 0; i < value_dim; ++i)
                    gathered.push_back(made[i] * activation(Activation::silu, output_gates[head * value_dim + i]));
            }
            inputs[attention + "out_proj"].push_back(gathered);
            add(h, linear(attention + "out_proj", gathered));
        }
    }

    /// LFM2's: of three parts that one linear makes, the product of first and third goes through a convolution over the
    /// last tokens, and is multiplied by the second.
    void gated_convolution(const std::string& name, Rows& hidden, std::map<std::string, Rows>& inputs) const {
        const Row& taps = tensors_.at(name + "conv.conv.weight");
        const auto width = static_cast<std::size_t>(config_.convolution_width);
        Rows before;
        for (Row& h : hidden) {
            const Row x = norm(name + "operator_norm", h);
            inputs[name + "conv.in_proj"].push_back(x);
            const Row parts = linear(name + "conv.in_proj", x);
            const std::size_t size = x.size();
            before.emplace_back();
            for (std::size_t i = 0; i < size; ++i)
                before.back().push_back(parts[i] * parts[2 * size + i]);
            Row made;
            for (std::size_t i = 0; i < size; ++i) {
                double sum = 0;
                for (std::size_t back = 0; back < std::min(width, before.size()); ++back)
                    sum += taps[i * width + width - 1 - back] * before[before.size() - 1 - back][i];
                made.push_back(parts[size + i] * sum);
            }
            inputs[name + "conv.out_proj"].push_back(made);
            add(h, linear(name + "conv.out_proj", made));
        }
    }

    /// With its weights as they are, where the model's other norms have theirs less 1.
    Row norm_of_head(const std::string& name, const Row& x) const {
        double squares = 0;
        for (const double v : x)
            squares += v * v / static_cast<double>(x.size());
        Row result;
        for (std::size_t i = 0; i < x.size(); ++i)
            result.push_back(x[i] / std::sqrt(squares + config_.norm_epsilon) * tensors_.at(name + ".weight")[i]);
        return result;
    }

    void attention(std::size_t layer, const std::string& name, Rows& hidden,
                   std::map<std::string, Rows>& inputs) const {
        const auto dim = static_cast<std::size_t>(config_.head_dim);
        const std::int64_t window = config_.windows[layer];
        const std::string attention = name + "self_attn.";
        const std::string output = attention + (opt_ || lfm2_ ? "out_proj" : "o_proj");
        Rows query, key, value, gates;
        for (std::size_t t = 0; t < hidden.size(); ++t) {
            const Row x = norms_behind_ ? hidden[t]
                                        : norm(name + (opt_    ? "self_attn_layer_norm"
                                                       : lfm2_ ? "operator_norm"
                                                               : "input_layernorm"),
                                               hidden[t]);
            if (tensors_.contains(attention + "kv_b_proj.weight")) {
                latent_heads(attention, x, t, {query, key, value}, inputs);
                continue;
            }
            if (phi_) {
                inputs[attention + "qkv_proj"].push_back(x);
                const Row all = linear(attention + "qkv_proj", x);
                const auto queries = static_cast<std::size_t>(config_.heads) * dim;
                const auto keys = static_cast<std::size_t>(config_.key_value_heads) * dim;
                query.push_back(heads(layer, attention + "q", part(all, 0, queries), t));
                key.push_back(heads(layer, attention + "k", part(all, queries, keys), t));
                value.push_back(part(all, queries + keys, keys));
                continue;
            }
            for (const char* linear_name : {"q_proj", "k_proj", "v_proj"})
                inputs[attention + linear_name].push_back(x);
            Row queries = linear(attention + "q_proj", x);
            if (qwen3_next_) {  // behind each head's query a gate of what it gathers
                gates.emplace_back();
                Row without;
                for (std::size_t i = 0; i < queries.size(); ++i)
                    (i / dim % 2 == 0 ? without : gates.back()).push_back(queries[i]);
                queries = without;
            }
            query.push_back(heads(layer, attention + "q", queries, t));
            key.push_back(heads(layer, attention + "k", linear(attention + "k_proj", x), t));
            value.push_back(linear(attention + "v_proj", x));
        }
        const std::size_t value_dim =
            config_.latent.key_value_rank > 0 ? static_cast<std::size_t>(config_.value_dim) : dim;
        const std::size_t query_heads = query[0].size() / dim;
        const std::size_t sharing = query_heads / (key[0].size() / dim);
        const double scale = config_.attention_multiplier.value_or(1 / std::sqrt(static_cast<double>(dim)));
        for (std::size_t t = 0; t < hidden.size(); ++t) {
            Row gathered(query_heads * value_dim, 0);
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
                    sum += weight[s] = std::exp(capped(score * scale, config_.attention_cap));
                }
                for (std::size_t s = 0; s <= t; ++s)
                    for (std::size_t i = 0; i < value_dim; ++i)
                        gathered[head * value_dim + i] += weight[s] / sum * value[s][head / sharing * value_dim + i];
            }
            if (qwen3_next_)
                for (std::size_t i = 0; i < gathered.size(); ++i)
                    gathered[i] /= 1 + std::exp(-gates[t][i]);
            inputs[output].push_back(gathered);
            add_output(hidden[t], linear(output, gathered),
                       name + (glm_ ? "post_self_attn_layernorm" : "post_attention_layernorm"));
        }
    }

    struct Heads {
        Rows &query, &key, &value;
    };

    /// DeepSeek's: keys and values from a latent, and queries from one of their own or from x; of each head the last
    /// elements turn, of keys the same ones for all heads.
    void latent_heads(const std::string& attention, const Row& x, std::size_t position, Heads heads,
                      std::map<std::string, Rows>& inputs) const {
        const auto dim = static_cast<std::size_t>(config_.head_dim);
        const auto turning = static_cast<std::size_t>(config_.rotary_dim);
        const auto value_dim = static_cast<std::size_t>(config_.value_dim);
        const std::size_t still = dim - turning;
        const auto made = [&](const std::string& name, const Row& from) {
            inputs[attention + name].push_back(from);
            return linear(attention + name, from);
        };
        const Row compressed = made("kv_a_proj_with_mqa", x);
        const std::size_t rank = compressed.size() - turning;
        const Row latent = norm(attention + "kv_a_layernorm", part(compressed, 0, rank), 1e-6);
        const Row common = turned(part(compressed, rank, turning), position);
        Row query = tensors_.contains(attention + "q_proj.weight")
                        ? made("q_proj", x)
                        : made("q_b_proj", norm(attention + "q_a_layernorm", made("q_a_proj", x), 1e-6));
        const Row both = made("kv_b_proj", latent);
        heads.query.emplace_back();
        heads.key.emplace_back();
        heads.value.emplace_back();
        const auto append = [](Row& to, const Row& more) { to.insert(to.end(), more.begin(), more.end()); };
        for (std::size_t head = 0; head < static_cast<std::size_t>(config_.heads); ++head) {
            append(heads.query.back(), part(query, head * dim, still));
            append(heads.query.back(), turned(part(query, head * dim + still, turning), position));
            append(heads.key.back(), part(both, head * (still + value_dim), still));
            append(heads.key.back(), common);
            append(heads.value.back(), part(both, head * (still + value_dim) + still, value_dim));
        }
    }

    /// Neighbours turn together, or halves where rope_interleave is false.
    Row turned(Row x, std::size_t position) const {
        const bool halves = config_.rotary_pairs == RotaryPairs::halves;
        for (std::size_t i = 0; i < x.size() / 2; ++i) {
            const double angle = static_cast<double>(position) * frequency(config_.rope, i);
            double& a = x[halves ? i : 2 * i];
            double& b = x[halves ? i + x.size() / 2 : 2 * i + 1];
            const double before = a;
            a = config_.rope.attention_factor * (a * std::cos(angle) - b * std::sin(angle));
            b = config_.rope.attention_factor * (b * std::cos(angle) + before * std::sin(angle));
        }
        return x;
    }

    static double capped(double value, double cap) { return cap > 0 ? cap * std::tanh(value / cap) : value; }

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
        const Row x = norms_behind_ ? hidden
                                    : norm(name + (norms_around_ ? "pre_feedforward_layernorm"
                                                   : lfm2_       ? "ffn_norm"
                                                                 : "post_attention_layernorm"),
                                           hidden);
        if (tensors_.contains(name + "mlp.gate.weight") || tensors_.contains(name + "block_sparse_moe.gate.weight"))
            return experts(name, x, hidden, inputs);
        Row made;
        if (tensors_.contains(name + "mlp.gate_up_proj.weight")) {
            inputs[name + "mlp.gate_up_proj"].push_back(x);
            const Row both = linear(name + "mlp.gate_up_proj", x);
            Row wide = part(both, 0, both.size() / 2);
            for (std::size_t i = 0; i < wide.size(); ++i)
                wide[i] = activation(config_.activation, wide[i]) * both[wide.size() + i];
            inputs[name + "mlp.down_proj"].push_back(wide);
            made = linear(name + "mlp.down_proj", wide);
        } else {
            made = lfm2_ ? gated_mlp(name + "feed_forward.", {"w1", "w3", "w2"}, x, inputs)
                         : gated_mlp(name + "mlp.", {"gate_proj", "up_proj", "down_proj"}, x, inputs);
        }
        add_output(hidden, made, name + (glm_ ? "post_mlp_layernorm" : "post_feedforward_layernorm"));
    }

    std::array<const char*, 3> expert_names() const {
        if (mixtral_) return {"w1", "w3", "w2"};
        return {"gate_proj", "up_proj", "down_proj"};
    }

    Row gated_mlp(const std::string& prefix, const std::array<const char*, 3>& names, const Row& x,
                  std::map<std::string, Rows>& inputs) const {
        const std::string gate = prefix + names[0], up = prefix + names[1], down = prefix + names[2];
        Row wide = linear(gate, x);
        const Row factors = linear(up, x);
        for (std::size_t i = 0; i < wide.size(); ++i)
            wide[i] = activation(config_.activation, wide[i]) * factors[i];
        inputs[gate].push_back(x);
        inputs[up].push_back(x);
        inputs[down].push_back(wide);
        return linear(down, wide);
    }

    /// Each expert's sigmoid (GLM, dots, MiniMax) or its part of the softmax (ERNIE), the best after a correction that
    /// does not count in the sum.
    void corrected_experts(const std::string& block, const Row& correction, const Row& x, Row& hidden,
                           std::map<std::string, Rows>& inputs) const {
        const bool ernie = config_.model_type == "ernie4_5_moe";
        Row scores = linear(block + "gate", x);
        double all = 0;
        for (const double score : scores)
            all += std::exp(score);
        std::vector<std::pair<double, std::size_t>> order;
        for (std::size_t expert = 0; expert < scores.size(); ++expert) {
            scores[expert] = ernie ? std::exp(scores[expert]) / all : 1 / (1 + std::exp(-scores[expert]));
            order.emplace_back(-scores[expert] - correction[expert], expert);
        }
        keep_best_groups(order, 2);
        std::sort(order.begin(), order.end());
        order.resize(static_cast<std::size_t>(config_.experts_per_token));
        double sum = 0;
        for (const auto& [score, expert] : order)
            sum += scores[expert];
        if (!config_.normalized_routing) sum = 1;
        for (const auto& [score, expert] : order) {
            Row made = gated_mlp(block + "experts." + std::to_string(expert) + ".", expert_names(), x, inputs);
            for (double& v : made)
                v *= scores[expert] / sum * config_.routing_scale;
            add(hidden, made);
        }
        if (tensors_.contains(block + "shared_experts.up_proj.weight"))
            add(hidden, gated_mlp(block + "shared_experts.", {"gate_proj", "up_proj", "down_proj"}, x, inputs));
    }

    /// Leaves the experts of the best groups: those whose `counted` best have the largest sum.
    /// @param order each expert's score, negative, and number
    void keep_best_groups(std::vector<std::pair<double, std::size_t>>& order, std::size_t counted) const {
        const auto groups = static_cast<std::size_t>(config_.expert_groups);
        if (groups < 2) return;
        const std::size_t each = order.size() / groups;
        std::vector<std::pair<double, std::size_t>> best;
        for (std::size_t group = 0; group < groups; ++group) {
            std::vector<double> scores;
            for (std::size_t i = 0; i < each; ++i)
                scores.push_back(order[group * each + i].first);
            std::sort(scores.begin(), scores.end());
            best.emplace_back(
                std::accumulate(scores.begin(), scores.begin() + static_cast<std::ptrdiff_t>(counted), 0.0), group);
        }
        std::sort(best.begin(), best.end());
        std::vector<std::pair<double, std::size_t>> kept;
        for (std::size_t rank = 0; rank < static_cast<std::size_t>(config_.groups_per_token); ++rank)
            for (std::size_t i = 0; i < each; ++i)
                kept.push_back(order[best[rank].second * each + i]);
        order = kept;
    }

    /// Each expert's probability is its part of the softmax over all; the most probable ones are asked.
    void experts(const std::string& name, const Row& x, Row& hidden, std::map<std::string, Rows>& inputs) const {
        const std::string block = name + (mixtral_ ? "block_sparse_moe." : "mlp.");
        for (const char* correction :
             {"gate.e_score_correction_bias", "moe_statics.e_score_correction_bias", "e_score_correction_bias"})
            if (tensors_.contains(block + correction))
                return corrected_experts(block, tensors_.at(block + correction), x, hidden, inputs);
        const Row scores = linear(block + "gate", x);
        double all = 0, chosen = 0;
        std::vector<std::pair<double, std::size_t>> order;
        for (std::size_t expert = 0; expert < scores.size(); ++expert) {
            all += std::exp(scores[expert]);
            order.emplace_back(-scores[expert], expert);
        }
        keep_best_groups(order, 1);
        std::sort(order.begin(), order.end());
        order.resize(static_cast<std::size_t>(config_.experts_per_token));
        for (const auto& [score, expert] : order)
            chosen += std::exp(-score) / all;
        for (const auto& [score, expert] : order) {
            const std::string prefix = block + "experts." + std::to_string(expert) + ".";
            Row made = gated_mlp(prefix, expert_names(), x, inputs);
            for (double& v : made)
                v *= std::exp(-score) / all / (config_.normalized_routing ? chosen : 1) * config_.routing_scale;
            add(hidden, made);
        }
        if (tensors_.contains(block + "shared_experts.up_proj.weight"))
            add(hidden, gated_mlp(block + "shared_experts.", {"gate_proj", "up_proj", "down_proj"}, x, inputs));
        if (!tensors_.contains(block + "shared_expert_gate.weight")) return;
        Row made = gated_mlp(block + "shared_expert.", {"gate_proj", "up_proj", "down_proj"}, x, inputs);
        for (double& v : made)
            v /= 1 + std::exp(-linear(block + "shared_expert_gate", x)[0]);
        add(hidden, made);
    }

    /// What attention or the MLP made, through a norm where the model has one behind them.
    void add_output(Row& hidden, Row made, const std::string& norm_name) const {
        if (norms_behind_ || norms_around_ || glm_) made = norm(norm_name, made);
        for (double& v : made)
            v *= config_.residual_multiplier;
        add(hidden, made);
    }

    /// Norm of each head, or of all as one, where the model has one, then rotation by the position.
    Row heads(std::size_t layer, const std::string& name, Row x, std::size_t position) const {
        const auto dim = static_cast<std::size_t>(config_.head_dim);
        const std::string norm_name = name + (lfm2_ ? "_layernorm" : "_norm");
        const bool has_norm = tensors_.contains(norm_name + ".weight");
        const bool of_all_heads = olmo_ || minimax_;
        if (has_norm && of_all_heads) x = norm(norm_name, x);
        const RopeSettings& rope = config_.windows[layer] > 0 ? config_.window_rope : config_.rope;
        const double factor = attention_factor(rope);
        for (std::size_t from = 0; from < x.size(); from += dim) {
            Row head = part(x, from, dim);
            if (has_norm && !of_all_heads) head = norm(norm_name, head);
            for (std::size_t i = 0; i < dim; ++i)
                x[from + i] = head[i];
            if (opt_ || !config_.rotary[layer]) continue;
            const bool neighbours = config_.model_type.starts_with("ernie") || config_.model_type == "glm" || glm_;
            const auto half = static_cast<std::size_t>(config_.rotary_dim) / 2;
            for (std::size_t i = 0; i < half; ++i) {
                const double angle = static_cast<double>(position) * frequency(rope, i);
                const std::size_t a = neighbours ? 2 * i : i;
                const std::size_t b = neighbours ? a + 1 : a + half;
                x[from + a] = factor * (head[a] * std::cos(angle) - head[b] * std::sin(angle));
                x[from + b] = factor * (head[b] * std::cos(angle) + head[a] * std::sin(angle));
            }
        }
        return x;
    }

    double attention_factor(const RopeSettings& rope) const {
        if (rope.type == "yarn") return 1 + std::log(rope.factor) / 10;
        if (rope.type == "longrope") return std::sqrt(1 + std::log(rope.factor) / std::log(config_.max_positions));
        return 1;
    }

    double frequency(const RopeSettings& rope, std::size_t i) const {
        const auto dim = static_cast<double>(config_.rotary_dim);
        const double plain = 1 / std::pow(rope.theta, 2 * static_cast<double>(i) / dim);
        const double context = rope.original_max_position_embeddings;
        if (rope.type == "linear") return plain / rope.factor;
        if (rope.type == "longrope") return plain / rope.short_factor[i];
        if (rope.type == "yarn") {
            // The element whose pair makes so many turns: theta^(−2 i / dim) · context = 2π · turns, solved for i.
            const auto element = [&](double turns) {
                return dim / 2 * std::log(context / (2 * std::numbers::pi * turns)) / std::log(rope.theta);
            };
            const double first = std::max(0.0, std::floor(element(rope.beta_fast)));
            const double last = std::min(dim - 1, std::ceil(element(rope.beta_slow)));
            const double stretched = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
            return plain * (1 - stretched) + plain / rope.factor * stretched;
        }
        if (rope.type != "llama3") return plain;
        const double wavelength = 2 * std::numbers::pi / plain;
        if (wavelength < context / rope.high_freq_factor) return plain;
        if (wavelength > context / rope.low_freq_factor) return plain / rope.factor;
        const double smooth =
            (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        return (1 - smooth) * plain / rope.factor + smooth * plain;
    }

    Row norm(const std::string& name, const Row& x) const { return norm(name, x, config_.norm_epsilon); }
    Row norm(const std::string& name, const Row& x, double epsilon) const {
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
            result.push_back((x[i] - mean) / std::sqrt(variance + epsilon) *
                                 (weight[i] + (gemma_ || qwen3_next_ ? 1 : 0)) +
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

    static Row part(const Row& x, std::size_t first, std::size_t count) {
        const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
        return {begin, begin + static_cast<std::ptrdiff_t>(count)};
    }

    static void add(Row& to, const Row& other) {
        for (std::size_t i = 0; i < to.size(); ++i)
            to[i] += other[i];
    }

    ModelConfig config_;
    std::map<std::string, Row> tensors_;
    bool opt_, gemma_, qwen3_next_, lfm2_, norms_around_, olmo_, minimax_, mixtral_, norms_behind_, phi_, glm_;
};

}  // namespace fairgptq::reference
