#include "eval/bootstrap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "backend/threads.hpp"
#include "support/error.hpp"

namespace fairgptq {
namespace {

ItemTable pairs_of(const std::vector<double>& differences) {
    ItemTable table;
    table.columns = {differences, differences};
    draw_items_alone(table, static_cast<std::int64_t>(differences.size()));
    return table;
}
constexpr std::size_t preferred = 1, distance = 2;  // places among the figures of pair_preference

TEST(Bootstrap, OfAShareIsThatOfTheBinomialDistribution) {
    // 400 items, half of them preferred: the share's standard error is 2.5 %, its interval ± 1.96 of that. With 2000
    // resamples an end is itself off by a standard error of sqrt(0.025 · 0.975 / 2000) / 0.0234 (the normal density
    // there, in percent of sigma) · 2.5 = 0.15; shares move in steps of 0.25.
    std::vector<double> differences(400, 1);
    std::fill_n(differences.begin(), 200, -1);
    const Interval interval = bootstrap(pair_preference_metric(), pairs_of(differences))[preferred];
    EXPECT_NEAR(interval.lower, 50 - 1.96 * 2.5, 0.25 + 3 * 0.15);
    EXPECT_NEAR(interval.upper, 50 + 1.96 * 2.5, 0.25 + 3 * 0.15);
}

TEST(Bootstrap, OfEqualItemsIsAPoint) {
    const Interval interval = bootstrap(pair_preference_metric(), pairs_of({2, 2, 2, 2, 2, 2}))[distance];
    EXPECT_EQ(interval.lower, 2);
    EXPECT_EQ(interval.upper, 2);
}

TEST(Bootstrap, NeedsSixItemsToBeSureOf95Percent) {
    // All of five on one side: 2 · 2⁻⁵ = 6.25 %, which is no 5 %. Of six: 3.1 %.
    const std::vector<double> base{1, 2, 3, 4, 5, 6}, other{2, 3, 4, 5, 6, 7};
    for (const std::size_t count : {1U, 2U, 5U, 6U}) {
        const auto first = [&](const std::vector<double>& all) {
            return pairs_of({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count)});
        };
        EXPECT_EQ(bootstrap(pair_preference_metric(), first(base))[distance].known(), count == 6);
        const Interval difference = bootstrap_difference(pair_preference_metric(), first(base), first(other))[distance];
        EXPECT_EQ(difference.known(), count == 6);
        EXPECT_EQ(difference.excludes_zero(), count == 6);
    }
}

TEST(Bootstrap, HasNoEndThatIsNotFinite) {
    // A word of log-probability −10⁵ is in two thirds of the resamples, and exp(10⁵ / 6) is beyond a double.
    ItemTable words;
    words.columns = {{-1, -1, -1, -1, -1, -1e5}, {1, 1, 1, 1, 1, 1}};
    draw_items_alone(words, 6);
    const std::vector<Interval> intervals = bootstrap(perplexity_metric(), words);
    EXPECT_FALSE(intervals[0].known());
    EXPECT_TRUE(intervals[1].known());  // bits per token
}

TEST(Bootstrap, DrawsTheItemsOfAClusterTogether) {
    // Ten terms of 40 items each, half of the terms always stereotyped: as uncertain as ten items, not four hundred.
    ItemTable table;
    table.columns.resize(3);
    std::vector<std::string> terms;
    for (int item = 0; item < 400; ++item) {
        table.columns[0].push_back(item % 10 < 5 ? 1 : -1);
        table.columns[1].push_back(2);
        table.columns[2].push_back(1);
        terms.push_back("term" + std::to_string(item % 10));
    }
    draw_items_by_name(table, terms);
    EXPECT_EQ(table.clusters, 10);
    const Interval together = bootstrap(stereoset_metric(), table)[2];
    EXPECT_LE(together.lower, 20);  // 50 − 1.96 · 15.8
    EXPECT_GE(together.upper, 80);
    draw_items_alone(table, 400);
    const Interval alone = bootstrap(stereoset_metric(), table)[2];
    EXPECT_GT(alone.lower, 44);
    EXPECT_LT(alone.upper, 56);
}

TEST(Bootstrap, OfADifferenceDrawsTheSameItemsForBoth) {
    std::vector<double> base(50), other(50);
    for (std::size_t i = 0; i < base.size(); ++i) {
        base[i] = 1 + static_cast<double>(i);
        other[i] = base[i] + 0.5;
    }
    const Interval interval = bootstrap_difference(pair_preference_metric(), pairs_of(base), pairs_of(other))[distance];
    EXPECT_NEAR(interval.lower, 0.5, 1e-12);
    EXPECT_NEAR(interval.upper, 0.5, 1e-12);
    EXPECT_TRUE(interval.excludes_zero());
    EXPECT_THROW(bootstrap_difference(pair_preference_metric(), pairs_of(base), pairs_of({1, 2})), Failure);
}

TEST(Bootstrap, DoesNotDependOnThreads) {
    std::vector<double> differences(30);
    std::iota(differences.begin(), differences.end(), -11.0);
    EXPECT_TRUE(testing::same_for_any_threads([&] {
        std::vector<double> ends;
        for (const Interval& interval : bootstrap(pair_preference_metric(), pairs_of(differences)))
            ends.insert(ends.end(), {interval.lower, interval.upper});
        return ends;
    }));
}

}  // namespace
}  // namespace fairgptq
