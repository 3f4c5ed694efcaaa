// How far figures would move with another sample of items: the bootstrap.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "eval/metrics.hpp"

namespace fairgptq {

/// 95 %; NaN where there is none (fewer than `fewest_clusters` to draw from, or an end that is not finite).
struct Interval {
    double lower = std::numeric_limits<double>::quiet_NaN();
    double upper = lower;
    bool known() const { return !std::isnan(lower); }
    bool excludes_zero() const { return known() && (lower > 0 || upper < 0); }
};

constexpr int bootstrap_resamples = 2000;

/// Of fewer there is no interval. No resample leaves the range of its clusters, and n of them all lie on one side of
/// their distribution's median with probability 2 · 2⁻ⁿ: below n = 6 more often than in 5 %. (Two windows of text that
/// both got a little worse would be a significant difference.)
constexpr std::int64_t fewest_clusters = 6;

/// Percentile intervals of every figure: as many clusters as there are are drawn with replacement, 2000 times. The
/// draws depend on the number of clusters alone: never on threads or ranks. Source: Efron, Bootstrap methods (1979).
std::vector<Interval> bootstrap(const Metric& metric, const ItemTable& table);

/// The same of `other` less `base`, both of the same drawn items each time.
/// @throws Failure unless both have the same items in the same clusters
std::vector<Interval> bootstrap_difference(const Metric& metric, const ItemTable& base, const ItemTable& other);

}  // namespace fairgptq
