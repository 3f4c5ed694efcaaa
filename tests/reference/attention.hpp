// Causal softmax attention, one sequence after another.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "backend/attention.hpp"
#include "reference/reference.hpp"

namespace fairgptq::reference {

inline Matrix attention(Input query, Input key, Input value, std::span<const std::int64_t> offsets,
                        const AttentionShape& shape) {
    const std::int64_t dim = shape.head_dim;
    const std::int64_t value_dim = shape.value_size();
    Matrix result(query.rows, shape.heads * value_dim);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
        for (std::int64_t token = offsets[s]; token < offsets[s + 1]; ++token)
            for (std::int64_t head = 0; head < shape.heads; ++head) {
                const std::int64_t key_head = head / (shape.heads / shape.key_value_heads);
                std::int64_t first = offsets[s];
                if (shape.window > 0) first = std::max(first, token - shape.window + 1);
                std::vector<double> scores;
                for (std::int64_t other = first; other <= token; ++other) {
                    double score = 0;
                    for (std::int64_t i = 0; i < dim; ++i)
                        score += static_cast<double>(query(token, head * dim + i)) *
                                 static_cast<double>(key(other, key_head * dim + i));
                    score *= static_cast<double>(shape.scale);
                    const auto cap = static_cast<double>(shape.cap);
                    scores.push_back(cap > 0 ? cap * std::tanh(score / cap) : score);
                }
                const double largest = *std::max_element(scores.begin(), scores.end());
                double sum = 0;
                for (double& score : scores)
                    sum += score = std::exp(score - largest);
                for (std::int64_t other = first; other <= token; ++other)
                    for (std::int64_t i = 0; i < value_dim; ++i)
                        result(token, head * value_dim + i) +=
                            scores[static_cast<std::size_t>(other - first)] / sum *
                            static_cast<double>(value(other, key_head * shape.value_step() + i));
            }
    return result;
}

}  // namespace fairgptq::reference
