// Which file computes which kind of task, and what becomes of every kind's figures.
#include "eval/metrics.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "eval/bootstrap.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

void add_figures(const Metric& metric, const ItemTable& table, TaskReport& report) {
    const std::vector<double> values = figures_of(metric, table);
    const std::vector<Interval> intervals = bootstrap(metric, table);
    TaskReport ranges = TaskReport::object();
    for (std::size_t index = 0; index < values.size(); ++index) {
        const Figure& figure = metric.figures[index];
        if (!std::isfinite(values[index])) continue;
        if (figure.label == nullptr) {
            report[figure.key] = static_cast<std::int64_t>(values[index]);
            continue;
        }
        report[figure.key] = values[index];
        if (intervals[index].known()) ranges[figure.key] = {intervals[index].lower, intervals[index].upper};
    }
    report["intervals"] = std::move(ranges);
}

}  // namespace

std::span<const Metric* const> all_metrics() {
    static const std::array<const Metric*, 7> metrics{
        &perplexity_metric(), &stereoset_metric(),       &pair_preference_metric(), &bbq_metric(),
        &sofa_metric(),       &multiple_choice_metric(), &last_word_metric()};
    return metrics;
}

const Metric& find_metric(std::string_view kind) {
    for (const Metric* metric : all_metrics())
        if (metric->kind == kind) return *metric;
    throw InvalidInput("no figures are known for tasks of the kind {}", kind);
}

void check_task(const Task& task) {
    (void)find_metric(task.kind);
    if (task.kind == "stereoset" && task.group.empty())
        throw InvalidInput(
            "task {} lacks `group`, the target term of each item, over which StereoSet's scores are averaged",
            task.name);
}

std::vector<double> figures_of(const Metric& metric, const ItemTable& table) {
    std::vector<double> values(metric.figures.size());
    metric.compute(table, std::vector<double>(static_cast<std::size_t>(table.clusters), 1.0), values);
    return values;
}

TaskReport evaluate_task(const Task& task, const LogLikelihoods& scores) {
    check_task(task);
    const Metric& metric = find_metric(task.kind);
    const ItemTable table = metric.items(task, scores);
    TaskReport report{{"kind", task.kind}};
    add_figures(metric, table, report);
    report["by_group"] = TaskReport::object();
    for (std::size_t group = 0; group < table.group_names.size(); ++group)
        add_figures(metric, table.of_group(static_cast<std::int32_t>(group)),
                    report["by_group"][table.group_names[group]]);
    report["per_item"] = to_json(table, metric.columns);
    return report;
}

}  // namespace fairgptq
