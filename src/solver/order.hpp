// The order in which the column loop visits the columns, and which columns share a scale.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "solver/settings.hpp"

namespace fairgptq {

struct ColumnPlan {
    std::vector<std::int32_t> order;        // [n] the loop's i-th column is column order[i] of the matrix
    std::vector<std::int32_t> inverse;      // [n] inverse[order[i]] = i
    std::vector<std::int32_t> loop_group;   // [n] group of the loop's i-th column
    std::vector<std::int32_t> group_index;  // [n] group of the matrix's column j (g_idx)
};

/// @param diagonal [n] of the Hessian that the order goes by; equal values keep their order
/// @param group_size divides n
/// @param static_groups groups are neighbours in the matrix whatever the order
ColumnPlan plan_columns(std::span<const double> diagonal, ColumnOrder order, std::int64_t group_size,
                        bool static_groups);

}  // namespace fairgptq
