// The gated delta rule as its definition has it, one sequence, head and token after another.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "backend/delta_rule.hpp"
#include "reference/reference.hpp"

namespace fairgptq::reference {

/// State and output of one value head.
class DeltaHead {
  public:
    DeltaHead(std::size_t key_dim, std::size_t value_dim)
        : state(key_dim, std::vector<double>(value_dim, 0)), value_dim_(value_dim) {}

    /// @param a, b as the gates have them; @param decay, step the head's own
    std::vector<double> token(std::vector<double> query, std::vector<double> key, const std::vector<double>& value,
                              double b, double a, double decay, double step) {
        for (std::vector<double>* one : {&query, &key}) {
            double squares = 1e-6;
            for (const double element : *one)
                squares += element * element;
            for (double& element : *one)
                element /= std::sqrt(squares);
        }
        const double fade = std::exp(-std::exp(decay) * std::log1p(std::exp(a + step)));
        const double beta = 1 / (1 + std::exp(-b));
        std::vector<double> output(value_dim_, 0);
        for (std::size_t j = 0; j < value_dim_; ++j) {
            double remembered = 0;
            for (std::size_t i = 0; i < key.size(); ++i) {
                state[i][j] *= fade;
                remembered += state[i][j] * key[i];
            }
            for (std::size_t i = 0; i < key.size(); ++i) {
                state[i][j] += key[i] * beta * (value[j] - remembered);
                output[j] += state[i][j] * query[i] / std::sqrt(static_cast<double>(key.size()));
            }
        }
        return output;
    }

    std::vector<std::vector<double>> state;  // [key_dim][value_dim]

  private:
    std::size_t value_dim_;
};

/// As DeltaRuleOperations::delta_rule. @param states [sequences · state_elements()], or empty
inline Matrix delta_rule(Input mixed, Input gates, const std::vector<float>& decay, const std::vector<float>& step,
                         std::span<const DeltaSequence> sequences, const DeltaShape& shape,
                         std::vector<double>& states) {
    Matrix result(mixed.rows, shape.value_cols());
    const auto part = [&](std::int64_t row, std::int64_t first, std::int64_t count) {
        const float* values = mixed.row(row) + first;
        return std::vector<double>(values, values + count);
    };
    for (std::size_t s = 0; s < sequences.size(); ++s)
        for (std::int64_t head = 0; head < shape.value_heads; ++head) {
            DeltaHead walk(static_cast<std::size_t>(shape.key_dim), static_cast<std::size_t>(shape.value_dim));
            const auto each = [&](const auto& visit) {
                std::size_t at = s * static_cast<std::size_t>(shape.state_elements()) +
                                 static_cast<std::size_t>(head * shape.key_dim * shape.value_dim);
                for (std::vector<double>& row : walk.state)
                    for (double& value : row)
                        visit(value, states[at++]);
            };
            if (!states.empty()) each([](double& value, double kept) { value = kept; });
            const std::int64_t key_head = head / (shape.value_heads / shape.key_heads);
            for (const RowRange& range : {sequences[s].prefix, sequences[s].own})
                for (std::int64_t row = range.begin; row < range.end; ++row) {
                    const auto h = static_cast<std::size_t>(head);
                    const std::vector<double> output =
                        walk.token(part(row, key_head * shape.key_dim, shape.key_dim),
                                   part(row, shape.key_cols() + key_head * shape.key_dim, shape.key_dim),
                                   part(row, 2 * shape.key_cols() + head * shape.value_dim, shape.value_dim),
                                   static_cast<double>(gates(row, head)),
                                   static_cast<double>(gates(row, shape.value_heads + head)),
                                   static_cast<double>(decay[h]), static_cast<double>(step[h]));
                    if (row < sequences[s].own.begin || row >= sequences[s].own.end) continue;
                    for (std::int64_t j = 0; j < shape.value_dim; ++j)
                        result(row, head * shape.value_dim + j) = output[static_cast<std::size_t>(j)];
                }
            if (!states.empty()) each([](double value, double& kept) { kept = value; });
        }
    return result;
}

}  // namespace fairgptq::reference
