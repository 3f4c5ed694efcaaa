// Which file computes which kind of task.
#include "eval/metrics.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "support/error.hpp"

namespace fairgptq {
namespace {

struct Metric {
    std::string_view kind;
    TaskReport (*compute)(const Task&, const LogLikelihoods&);
};
constexpr std::array metrics{Metric{"perplexity", &perplexity}, Metric{"pair_preference", &pair_preference},
                             Metric{"stereoset", &stereoset}};

const Metric* find_metric(const Task& task) {
    const auto found =
        std::find_if(metrics.begin(), metrics.end(), [&](const Metric& metric) { return metric.kind == task.kind; });
    return found == metrics.end() ? nullptr : &*found;
}

}  // namespace

void check_task(const Task& task) {
    if (find_metric(task) == nullptr)
        throw InvalidInput(
            "task {} is of the kind {}, which is not evaluated yet (perplexity, pair_preference and stereoset are): "
            "choose others with --tasks",
            task.name, task.kind);
    if (task.kind == "stereoset" && task.group.empty())
        throw InvalidInput(
            "task {} lacks `group`, the target term of each item, over which StereoSet's scores are averaged",
            task.name);
}

TaskReport evaluate_task(const Task& task, const LogLikelihoods& scores) {
    check_task(task);
    return find_metric(task)->compute(task, scores);
}

}  // namespace fairgptq
