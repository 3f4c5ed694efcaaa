// The sequences of a task by item and role, and sums over its items.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "calibration/tokens.hpp"
#include "eval/item_table.hpp"

namespace fairgptq {

/// sequence[item][role] (the token file's reader sees to it that none is missing).
inline std::vector<std::vector<std::int64_t>> sequences_by_item(const Task& task) {
    std::vector<std::vector<std::int64_t>> result(static_cast<std::size_t>(task.items));
    for (std::int64_t sequence = 0; sequence < task.sequences.count(); ++sequence) {
        auto& roles = result[task.item[sequence]];
        const auto role = static_cast<std::size_t>(task.role[sequence]);
        if (roles.size() <= role) roles.resize(role + 1);
        roles[role] = sequence;
    }
    return result;
}

/// Place of the largest score, of equal ones the first. @param sequences not empty
template <class Score>
std::size_t first_largest(const std::vector<std::int64_t>& sequences, const Score& score) {
    std::size_t best = 0;
    for (std::size_t place = 1; place < sequences.size(); ++place)
        if (score(sequences[place]) > score(sequences[best])) best = place;
    return best;
}

/// A table's items and the sums of its columns, each item by its cluster's weight.
struct WeightedSums {
    double items = 0;
    std::vector<double> columns;
};
/// @param weights [clusters]
inline WeightedSums weighted_sums(const ItemTable& table, std::span<const double> weights) {
    WeightedSums sums{0, std::vector<double>(table.columns.size(), 0.0)};
    for (std::int64_t item = 0; item < table.items(); ++item) {
        const double weight = weights[table.cluster[item]];
        sums.items += weight;
        for (std::size_t column = 0; column < table.columns.size(); ++column)
            sums.columns[column] += weight * table.columns[column][item];
    }
    return sums;
}

}  // namespace fairgptq
