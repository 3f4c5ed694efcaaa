#include "eval/bootstrap.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>

#include "support/error.hpp"

namespace fairgptq {
namespace {

/// How often each cluster is drawn. Every resample has a generator of its own, so that threads may share them out.
void draw(std::uint64_t resample, std::vector<double>& weights) {
    std::mt19937_64 generator(resample);
    std::fill(weights.begin(), weights.end(), 0.0);
    const auto count = static_cast<std::uint64_t>(weights.size());
    for (std::uint64_t i = 0; i < count; ++i)
        weights[(generator() >> 32U) * count >> 32U] += 1;
}

/// Linear interpolation between the two nearest ranks. @param sorted not empty
double quantile(const std::vector<double>& sorted, double share) {
    const double place = share * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// @param evaluate (weights, values [figures]): called from several threads
template <class Evaluate>
std::vector<Interval> intervals(std::size_t figures, std::int64_t clusters, const Evaluate& evaluate) {
    std::vector<Interval> result(figures);
    if (clusters < fewest_clusters) return result;
    std::vector<std::vector<double>> samples(figures, std::vector<double>(bootstrap_resamples));
#pragma omp parallel
    {
        std::vector<double> weights(static_cast<std::size_t>(clusters));
        std::vector<double> values(figures);
#pragma omp for schedule(static)
        for (int resample = 0; resample < bootstrap_resamples; ++resample) {
            draw(static_cast<std::uint64_t>(resample), weights);
            evaluate(weights, values);
            for (std::size_t figure = 0; figure < figures; ++figure)
                samples[figure][static_cast<std::size_t>(resample)] = values[figure];
        }
    }
    for (std::size_t figure = 0; figure < figures; ++figure) {
        std::vector<double>& values = samples[figure];
        std::erase_if(values, [](double value) { return std::isnan(value); });
        if (values.empty()) continue;
        std::sort(values.begin(), values.end());
        const Interval interval{quantile(values, 0.025), quantile(values, 0.975)};
        if (std::isfinite(interval.lower) && std::isfinite(interval.upper)) result[figure] = interval;
    }
    return result;
}

}  // namespace

std::vector<Interval> bootstrap(const Metric& metric, const ItemTable& table) {
    return intervals(metric.figures.size(), table.clusters,
                     [&](const std::vector<double>& weights, std::vector<double>& values) {
                         metric.compute(table, weights, values);
                     });
}

std::vector<Interval> bootstrap_difference(const Metric& metric, const ItemTable& base, const ItemTable& other) {
    if (base.cluster != other.cluster) throw Failure("figures of different items cannot be compared pair by pair");
    return intervals(metric.figures.size(), base.clusters,
                     [&](const std::vector<double>& weights, std::vector<double>& values) {
                         std::vector<double> base_values(values.size());
                         metric.compute(base, weights, base_values);
                         metric.compute(other, weights, values);
                         for (std::size_t figure = 0; figure < values.size(); ++figure)
                             values[figure] -= base_values[figure];
                     });
}

}  // namespace fairgptq
