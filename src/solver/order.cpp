#include "solver/order.hpp"

#include <algorithm>
#include <numeric>

namespace fairgptq {

ColumnPlan plan_columns(std::span<const double> diagonal, ColumnOrder order, std::int64_t group_size,
                        bool static_groups) {
    const std::size_t n = diagonal.size();
    const auto group_of = [&](std::int32_t column) { return static_cast<std::int32_t>(column / group_size); };
    ColumnPlan plan;
    plan.order.resize(n);
    std::iota(plan.order.begin(), plan.order.end(), 0);
    if (order == ColumnOrder::activation) {
        std::stable_sort(plan.order.begin(), plan.order.end(),
                         [&](std::int32_t a, std::int32_t b) { return diagonal[a] > diagonal[b]; });
    } else if (order == ColumnOrder::group && n > 0) {
        std::vector<double> largest(n / static_cast<std::size_t>(group_size), 0.0);
        for (std::size_t j = 0; j < n; ++j) {
            double& value = largest[group_of(static_cast<std::int32_t>(j))];
            value = std::max(value, diagonal[j]);
        }
        std::stable_sort(plan.order.begin(), plan.order.end(), [&](std::int32_t a, std::int32_t b) {
            const std::int32_t first = group_of(a);
            const std::int32_t second = group_of(b);
            if (first != second)
                return largest[first] != largest[second] ? largest[first] > largest[second] : first < second;
            return diagonal[a] > diagonal[b];
        });
    }

    const bool along_the_loop = order == ColumnOrder::activation && !static_groups;
    plan.inverse.resize(n);
    plan.loop_group.resize(n);
    plan.group_index.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
        const std::int32_t column = plan.order[i];
        plan.inverse[column] = static_cast<std::int32_t>(i);
        plan.loop_group[i] = group_of(along_the_loop ? static_cast<std::int32_t>(i) : column);
        plan.group_index[column] = plan.loop_group[i];
    }
    return plan;
}

}  // namespace fairgptq
