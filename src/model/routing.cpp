#include "model/routing.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>

namespace fairgptq {
namespace {

struct ChosenExpert {
    std::int32_t expert;
    float weight;
};

/// The experts of one row, and what each one's output counts.
class ExpertChoice {
  public:
    /// @param bias [experts], or empty
    ExpertChoice(const ModelConfig& config, std::span<const float> bias) : config_(config), bias_(bias) {}

    /// Those with the largest scores, the first of equal ones.
    /// @param choices [experts_per_token], written
    void choose(std::span<const float> logits, ChosenExpert* choices) {
        const bool softmax = config_.router_score == RouterScore::softmax;
        const float largest = *std::ranges::max_element(logits);
        weights_.clear();
        for (const float logit : logits)
            weights_.push_back(softmax ? std::exp(logit - largest) : sigmoid(logit));
        scores_.assign(logits.begin(), logits.end());  // in the order of the weights
        if (!bias_.empty()) {
            const float all = softmax ? std::accumulate(weights_.begin(), weights_.end(), 0.0F) : 1;
            for (std::size_t expert = 0; expert < bias_.size(); ++expert)
                scores_[expert] = weights_[expert] / all + bias_[expert];
        }
        list_experts();
        const auto chosen = order_.begin() + config_.experts_per_token;
        std::partial_sort(order_.begin(), chosen, order_.end(), [&](std::int32_t a, std::int32_t b) {
            return score(a) != score(b) ? score(a) > score(b) : a < b;
        });
        float sum = 1;
        if (config_.normalized_routing)
            sum = std::accumulate(order_.begin(), chosen, 0.0F,
                                  [&](float total, std::int32_t expert) { return total + weight(expert); });
        else if (softmax)
            sum = std::accumulate(weights_.begin(), weights_.end(), 0.0F);
        if (!softmax) sum += 1e-20F;  // of sigmoids that are all 0
        const auto scale = static_cast<float>(config_.routing_scale);
        std::transform(order_.begin(), chosen, choices, [&](std::int32_t expert) {
            return ChosenExpert{expert, scale * (weight(expert) / sum)};
        });
    }

  private:
    /// Those among which a token's experts are chosen: all, or those of the groups with the best experts.
    void list_experts() {
        const auto groups = static_cast<std::size_t>(config_.expert_groups);
        if (groups == 1) {
            order_.resize(scores_.size());
            std::iota(order_.begin(), order_.end(), 0);
            return;
        }
        const std::size_t each = scores_.size() / groups;
        groups_.clear();
        for (std::size_t group = 0; group < groups; ++group)
            groups_.emplace_back(-score_of_group(std::span(scores_).subspan(group * each, each)), group);
        std::sort(groups_.begin(), groups_.end());
        groups_.resize(static_cast<std::size_t>(config_.groups_per_token));
        order_.clear();
        for (const auto& [score, group] : groups_)
            for (std::size_t expert = group * each; expert < (group + 1) * each; ++expert)
                order_.push_back(static_cast<std::int32_t>(expert));
    }

    /// DeepSeek-V2's: the best expert's; DeepSeek-V3's: the sum of the two best.
    float score_of_group(std::span<const float> scores) const {
        std::array<float, 2> best{-std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
        for (const float score : scores) {
            best[1] = std::max(best[1], std::min(best[0], score));
            best[0] = std::max(best[0], score);
        }
        return config_.router_score == RouterScore::softmax ? best[0] : best[0] + best[1];
    }

    float score(std::int32_t expert) const { return scores_[static_cast<std::size_t>(expert)]; }
    float weight(std::int32_t expert) const { return weights_[static_cast<std::size_t>(expert)]; }

    const ModelConfig& config_;
    std::span<const float> bias_;
    std::vector<float> weights_, scores_;
    std::vector<std::int32_t> order_;
    std::vector<std::pair<float, std::size_t>> groups_;  // the best ones: less their score, and which
};

}  // namespace

std::vector<Routing::Expert> route_rows(std::span<const float> logits, std::span<const float> bias,
                                        const ModelConfig& config) {
    const auto experts = static_cast<std::size_t>(config.experts);
    const auto each = static_cast<std::size_t>(config.experts_per_token);
    const std::size_t rows = logits.size() / experts;
    std::vector<ChosenExpert> choices(rows * each);
    // A GPU waits for this.
#pragma omp parallel
    {
        ExpertChoice choice(config, bias);
#pragma omp for schedule(static)
        for (std::size_t row = 0; row < rows; ++row)
            choice.choose(logits.subspan(row * experts, experts), &choices[row * each]);
    }
    std::vector<Routing::Expert> routed(experts);
    for (std::size_t i = 0; i < choices.size(); ++i) {
        Routing::Expert& expert = routed[static_cast<std::size_t>(choices[i].expert)];
        expert.rows.push_back(static_cast<std::int32_t>(i / each));
        expert.weights.push_back(choices[i].weight);
    }
    return routed;
}

}  // namespace fairgptq
