#include "eval/items.hpp"
#include "eval/metrics.hpp"

namespace fairgptq {
namespace {

constexpr const char* columns[] = {"correct", "correct_norm"};
enum Column : std::size_t { correct, correct_norm };
constexpr Figure figures[] = {
    {"items", nullptr}, {"accuracy", "accuracy %"}, {"accuracy_norm", "accuracy by length %"}};

ItemTable items(const Task& task, const LogLikelihoods& scores) {
    ItemTable table;
    table.columns.resize(2);
    const auto sequences = sequences_by_item(task);
    for (std::size_t item = 0; item < sequences.size(); ++item) {
        const auto is_right = [&](std::size_t choice) {
            return static_cast<std::int32_t>(choice) == task.label[item] ? 1.0 : 0.0;
        };
        table.columns[correct].push_back(
            is_right(first_largest(sequences[item], [&](std::int64_t sequence) { return scores.total[sequence]; })));
        table.columns[correct_norm].push_back(is_right(first_largest(sequences[item], [&](std::int64_t sequence) {
            return scores.total[sequence] / static_cast<double>(task.choice_length[sequence]);
        })));
    }
    draw_items_alone(table, task.items);
    set_groups(table, task.group);
    return table;
}

void compute(const ItemTable& table, std::span<const double> weights, std::span<double> values) {
    const WeightedSums sums = weighted_sums(table, weights);
    values[0] = sums.items;
    values[1] = 100 * sums.columns[correct] / sums.items;
    values[2] = 100 * sums.columns[correct_norm] / sums.items;
}

}  // namespace

const Metric& multiple_choice_metric() {
    static const Metric metric{"multiple_choice", columns, figures, items, compute};
    return metric;
}

}  // namespace fairgptq
