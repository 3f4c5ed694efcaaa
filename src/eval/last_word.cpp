#include <cmath>

#include "eval/items.hpp"
#include "eval/metrics.hpp"

namespace fairgptq {
namespace {

constexpr const char* columns[] = {"correct", "log_likelihood"};
enum Column : std::size_t { correct, log_likelihood };
constexpr Figure figures[] = {
    {"items", nullptr}, {"accuracy", "accuracy %"}, {"perplexity", "perplexity of the last word"}};

ItemTable items(const Task& task, const LogLikelihoods& scores) {
    ItemTable table;
    table.columns.assign(2, std::vector<double>(static_cast<std::size_t>(task.items)));
    for (std::int64_t sequence = 0; sequence < task.sequences.count(); ++sequence) {
        const std::int32_t item = task.item[sequence];
        table.columns[correct][item] = scores.greedy[sequence];
        table.columns[log_likelihood][item] = scores.total[sequence];
    }
    draw_items_alone(table, task.items);
    set_groups(table, task.group);
    return table;
}

void compute(const ItemTable& table, std::span<const double> weights, std::span<double> values) {
    const WeightedSums sums = weighted_sums(table, weights);
    values[0] = sums.items;
    values[1] = 100 * sums.columns[correct] / sums.items;
    values[2] = std::exp(-sums.columns[log_likelihood] / sums.items);
}

}  // namespace

const Metric& last_word_metric() {
    static const Metric metric{"last_word", columns, figures, items, compute};
    return metric;
}

}  // namespace fairgptq
