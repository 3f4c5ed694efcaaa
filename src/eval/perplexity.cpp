#include <cmath>
#include <numbers>
#include <set>

#include "eval/items.hpp"
#include "eval/metrics.hpp"

namespace fairgptq {
namespace {

constexpr const char* columns[] = {"log_likelihood", "tokens"};
enum Column : std::size_t { log_likelihood, token_count };
constexpr Figure figures[] = {
    {"perplexity", "perplexity"}, {"bits_per_token", "bits per token"}, {"tokens", nullptr}, {"sequences", nullptr}};

ItemTable items(const Task& task, const LogLikelihoods& scores) {
    ItemTable table;
    table.columns = {scores.total, {scores.tokens.begin(), scores.tokens.end()}};
    draw_items_alone(table, task.sequences.count());
    if (std::set(task.group.begin(), task.group.end()).size() > 1) set_groups(table, task.group);
    return table;
}

void compute(const ItemTable& table, std::span<const double> weights, std::span<double> values) {
    const WeightedSums sums = weighted_sums(table, weights);
    const double total = sums.columns[log_likelihood], tokens = sums.columns[token_count];
    values[0] = std::exp(-total / tokens);
    values[1] = -total / tokens / std::numbers::ln2;
    values[2] = tokens;
    values[3] = sums.items;
}

}  // namespace

const Metric& perplexity_metric() {
    static const Metric metric{"perplexity", columns, figures, items, compute};
    return metric;
}

}  // namespace fairgptq
