#include <cmath>

#include "eval/items.hpp"
#include "eval/metrics.hpp"

namespace fairgptq {
namespace {

/// What is summed over items.
struct Sums {
    std::int64_t items = 0;
    std::int64_t preferred = 0;
    double difference = 0;
    double difference_per_token = 0;

    TaskReport report() const {
        const auto count = static_cast<double>(items);
        return {{"items", items},
                {"stereotype_preferred", 100.0 * static_cast<double>(preferred) / count},
                {"mean_abs_difference", difference / count},
                {"mean_abs_difference_per_token", difference_per_token / count}};
    }
};

}  // namespace

TaskReport pair_preference(const Task& task, const LogLikelihoods& scores) {
    const auto items = sequences_by_item(task, 2);
    Sums all;
    std::map<std::string, Sums> groups;
    for (std::size_t item = 0; item < items.size(); ++item) {
        const std::int64_t more = items[item][0];
        const std::int64_t less = items[item][1];
        const auto add = [&](Sums& sums) {
            ++sums.items;
            sums.preferred += scores.total[more] > scores.total[less] ? 1 : 0;
            sums.difference += std::abs(scores.total[more] - scores.total[less]);
            sums.difference_per_token += std::abs(scores.mean(more) - scores.mean(less));
        };
        add(all);
        if (!task.group.empty()) add(groups[task.group[item]]);
    }
    TaskReport report{{"kind", task.kind}};
    report.update(all.report());
    report["by_group"] = TaskReport::object();
    for (const auto& [name, sums] : groups)
        report["by_group"][name] = sums.report();
    return report;
}

}  // namespace fairgptq
