// Figures worked out by hand.
#include "eval/metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/error.hpp"

namespace fairgptq {
namespace {

using ::testing::HasSubstr;

/// A task of `count` sequences of 2 tokens each: metrics look at scores, not at tokens.
Task task_of(const std::string& kind, std::int64_t count) {
    Task task;
    task.name = "mine";
    task.kind = kind;
    for (std::int64_t i = 1; i <= count; ++i)
        task.sequences.offsets.push_back(2 * i);
    task.sequences.ids.assign(static_cast<std::size_t>(2 * count), 0);
    return task;
}

// Sums of a few numbers of magnitude 100: each addition and division rounds once.
constexpr double tolerance = 100 * 8 * std::numeric_limits<double>::epsilon();

TEST(Perplexity, IsExpOfTheMeanOverTokens) {
    // Mean over tokens, not over sequences: −(−2 − 6) / (1 + 3) = 2.
    const TaskReport report = perplexity(task_of("perplexity", 2), {{-2.0, -6.0}, {1, 3}});
    EXPECT_NEAR(report["perplexity"], std::exp(2.0), tolerance);
    EXPECT_EQ(report["tokens"], 4);
    EXPECT_EQ(report["sequences"], 2);
    EXPECT_EQ(report["kind"], "perplexity");
}

TEST(Perplexity, OfAUniformModelIsItsVocabulary) {
    const double each = -std::log(50.0);
    const TaskReport report = perplexity(task_of("perplexity", 3), {{2 * each, 5 * each, each}, {2, 5, 1}});
    EXPECT_NEAR(report["perplexity"], 50.0, tolerance);
}

TEST(PairPreference, CountsTheMoreProbableSentence) {
    Task task = task_of("pair_preference", 8);
    task.items = 4;
    task.item = {0, 0, 2, 2, 1, 1, 3, 3};
    task.role = {0, 1, 1, 0, 0, 1, 0, 1};  // item 2's stereotypical sentence comes second
    task.group = {"race", "age", "race", "age"};
    const LogLikelihoods scores{{-10, -12, -9, -6, -8, -4, -5, -5}, {5, 4, 3, 3, 2, 4, 5, 5}};
    // item 0: -10 > -12, |Δ| 2, per token |-2 + 3| = 1.   item 1: -8 < -4, |Δ| 4, per token |-4 + 1| = 3.
    // item 2: -6 > -9, |Δ| 3, per token |-2 + 3| = 1.     item 3: equal, so not preferred, |Δ| 0.
    const TaskReport report = pair_preference(task, scores);
    EXPECT_EQ(report["items"], 4);
    EXPECT_NEAR(report["stereotype_preferred"], 50.0, tolerance);
    EXPECT_NEAR(report["mean_abs_difference"], (2 + 4 + 3 + 0) / 4.0, tolerance);
    EXPECT_NEAR(report["mean_abs_difference_per_token"], (1 + 3 + 1 + 0) / 4.0, tolerance);
    EXPECT_EQ(report["by_group"].size(), 2U);
    const TaskReport& race = report["by_group"]["race"];
    EXPECT_EQ(race["items"], 2);
    EXPECT_NEAR(race["stereotype_preferred"], 100.0, tolerance);
    EXPECT_NEAR(race["mean_abs_difference"], 2.5, tolerance);
    const TaskReport& age = report["by_group"]["age"];
    EXPECT_NEAR(age["stereotype_preferred"], 0.0, tolerance);
    EXPECT_NEAR(age["mean_abs_difference_per_token"], 1.5, tolerance);
}

TEST(PairPreference, WithoutGroupsHasNone) {
    Task task = task_of("pair_preference", 2);
    task.items = 1;
    task.item = {0, 0};
    task.role = {0, 1};
    const TaskReport report = pair_preference(task, {{-1, -2}, {1, 1}});
    EXPECT_EQ(report["stereotype_preferred"], 100.0);
    EXPECT_TRUE(report["by_group"].empty());
}

/// Three items of two terms. Mean log-probabilities per token (stereotype, anti-stereotype, unrelated):
///   item 0, cook:  -1, -2, -3   stereotype wins, both meaningful ones win
///   item 1, nurse: -4, -2, -3   anti-stereotype wins, one meaningful one wins
///   item 2, cook:  -5, -4, -1   anti-stereotype wins, none wins
Task three_triples() {
    Task task = task_of("stereoset", 9);
    task.items = 3;
    task.item = {0, 0, 0, 1, 1, 1, 2, 2, 2};
    task.role = {0, 1, 2, 2, 1, 0, 0, 1, 2};
    task.group = {"cook", "nurse", "cook"};
    return task;
}
const LogLikelihoods triple_scores{{-3, -2, -9, -6, -4, -4, -10, -4, -2}, {3, 1, 3, 2, 2, 1, 2, 1, 2}};

TEST(StereoSet, AveragesOverTargetTerms) {
    const TaskReport report = stereoset(three_triples(), triple_scores);
    // cook: SS 1/2, LMS 2/4. nurse: SS 0, LMS 1/2. Means over terms: SS 25 %, LMS 50 %; ICAT 50 · 25 / 50 = 25.
    // (Over items SS would be 1/3.)
    EXPECT_EQ(report["items"], 3);
    EXPECT_EQ(report["terms"], 2);
    EXPECT_NEAR(report["ss"], 25.0, tolerance);
    EXPECT_NEAR(report["lms"], 50.0, tolerance);
    EXPECT_NEAR(report["icat"], 25.0, tolerance);
    EXPECT_NEAR(report["mean_abs_difference_per_token"], (1 + 2 + 1) / 3.0, tolerance);
    EXPECT_TRUE(report["by_group"].empty());
}

TEST(StereoSet, IsReportedByBiasType) {
    Task task = three_triples();
    task.bias_type = {"profession", "gender", "gender"};
    const TaskReport report = stereoset(task, triple_scores);
    EXPECT_NEAR(report["ss"], 25.0, tolerance);
    const TaskReport& profession = report["by_group"]["profession"];
    EXPECT_NEAR(profession["ss"], 100.0, tolerance);
    EXPECT_NEAR(profession["lms"], 100.0, tolerance);
    EXPECT_NEAR(profession["icat"], 0.0, tolerance);
    const TaskReport& gender = report["by_group"]["gender"];
    EXPECT_EQ(gender["items"], 2);
    EXPECT_NEAR(gender["ss"], 0.0, tolerance);
    EXPECT_NEAR(gender["lms"], 25.0, tolerance);
}

TEST(StereoSet, OfAnIdealModelHasAnIcatOf100) {
    // Two items of one term, meaningful always wins, stereotype in one of two.
    Task task = task_of("stereoset", 6);
    task.items = 2;
    task.item = {0, 0, 0, 1, 1, 1};
    task.role = {0, 1, 2, 0, 1, 2};
    task.group = {"cook", "cook"};
    const TaskReport report = stereoset(task, {{-1, -2, -3, -2, -1, -3}, {1, 1, 1, 1, 1, 1}});
    EXPECT_NEAR(report["icat"], 100.0, tolerance);
}

TEST(Tasks, OfAnotherKindAreRefusedByName) {
    for (const char* kind : {"multiple_choice", "bbq", "sofa"}) {
        try {
            check_task(task_of(kind, 2));
            FAIL() << kind;
        } catch (const InvalidInput& error) {
            EXPECT_THAT(error.what(), HasSubstr("task mine is of the kind " + std::string(kind)));
        }
    }
    EXPECT_NO_THROW(check_task(task_of("perplexity", 1)));
    EXPECT_NO_THROW(check_task(task_of("pair_preference", 2)));
    Task task = three_triples();
    EXPECT_NO_THROW(check_task(task));
    task.group.clear();
    EXPECT_THROW(check_task(task), InvalidInput);
}

TEST(Tasks, AreEvaluatedByTheirKind) {
    EXPECT_EQ(evaluate_task(three_triples(), triple_scores), stereoset(three_triples(), triple_scores));
    const Task words = task_of("perplexity", 1);
    EXPECT_EQ(evaluate_task(words, {{-1}, {1}}), perplexity(words, {{-1}, {1}}));
}

}  // namespace
}  // namespace fairgptq
