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

/// The same with `items` items of `roles` sequences each, in order.
Task items_of(const std::string& kind, std::int32_t items, std::int32_t roles) {
    Task task = task_of(kind, items * roles);
    task.items = items;
    for (std::int32_t i = 0; i < items * roles; ++i) {
        task.item.push_back(i / roles);
        task.role.push_back(i % roles);
    }
    return task;
}

/// One token scored in each sequence, unless said otherwise; none was the most probable one.
LogLikelihoods scores_of(const std::vector<double>& totals, std::vector<std::int64_t> tokens = {}) {
    if (tokens.empty()) tokens.assign(totals.size(), 1);
    return {totals, tokens, std::vector<std::uint8_t>(totals.size(), 0)};
}

// Sums of a few numbers of magnitude 100: each addition and division rounds once.
constexpr double tolerance = 100 * 8 * std::numeric_limits<double>::epsilon();

TEST(Perplexity, IsExpOfTheMeanOverTokens) {
    // Mean over tokens, not over sequences: −(−2 − 6) / (1 + 3) = 2.
    const TaskReport report = evaluate_task(task_of("perplexity", 2), scores_of({-2.0, -6.0}, {1, 3}));
    EXPECT_NEAR(report["perplexity"], std::exp(2.0), tolerance);
    EXPECT_NEAR(report["bits_per_token"], 2 / std::log(2.0), tolerance);
    EXPECT_EQ(report["tokens"], 4);
    EXPECT_EQ(report["sequences"], 2);
    EXPECT_EQ(report["kind"], "perplexity");
}

TEST(Perplexity, IsReportedByTextWhereThereAreSeveral) {
    Task task = task_of("perplexity", 3);
    task.group = {"news.txt", "tales.txt", "news.txt"};
    const LogLikelihoods scores = scores_of({-2.0, -6.0, -8.0}, {1, 3, 1});
    const TaskReport report = evaluate_task(task, scores);
    EXPECT_NEAR(report["perplexity"], std::exp(16 / 5.0), tolerance);
    EXPECT_NEAR(report["by_group"]["news.txt"]["perplexity"], std::exp(10 / 2.0), tolerance * std::exp(5.0));
    EXPECT_NEAR(report["by_group"]["tales.txt"]["perplexity"], std::exp(6 / 3.0), tolerance);
    task.group = {"news.txt", "news.txt", "news.txt"};
    EXPECT_TRUE(evaluate_task(task, scores)["by_group"].empty());
}

TEST(Perplexity, OfAUniformModelIsItsVocabulary) {
    const double each = -std::log(64.0);
    const TaskReport report = evaluate_task(task_of("perplexity", 3), scores_of({2 * each, 5 * each, each}, {2, 5, 1}));
    EXPECT_NEAR(report["perplexity"], 64.0, tolerance);
    EXPECT_NEAR(report["bits_per_token"], 6.0, tolerance);
}

TEST(PairPreference, CountsTheMoreProbableSentence) {
    Task task = task_of("pair_preference", 8);
    task.items = 4;
    task.item = {0, 0, 2, 2, 1, 1, 3, 3};
    task.role = {0, 1, 1, 0, 0, 1, 0, 1};  // item 2's stereotypical sentence comes second
    task.group = {"race", "age", "race", "age"};
    const LogLikelihoods scores = scores_of({-10, -12, -9, -6, -8, -4, -5, -5}, {5, 4, 3, 3, 2, 4, 5, 5});
    // item 0: -10 > -12, |Δ| 2, per token |-2 + 3| = 1.   item 1: -8 < -4, |Δ| 4, per token |-4 + 1| = 3.
    // item 2: -6 > -9, |Δ| 3, per token |-2 + 3| = 1.     item 3: equal, so not preferred, |Δ| 0.
    const TaskReport report = evaluate_task(task, scores);
    EXPECT_EQ(report["per_item"]["columns"]["difference"], (std::vector<double>{2, -4, 3, 0}));
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
    const TaskReport report = evaluate_task(items_of("pair_preference", 1, 2), scores_of({-1, -2}));
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
const LogLikelihoods triple_scores = scores_of({-3, -2, -9, -6, -4, -4, -10, -4, -2}, {3, 1, 3, 2, 2, 1, 2, 1, 2});

TEST(StereoSet, AveragesOverTargetTerms) {
    const TaskReport report = evaluate_task(three_triples(), triple_scores);
    // cook: SS 1/2, LMS 2/4. nurse: SS 0, LMS 1/2. Means over terms: SS 25 %, LMS 50 %; ICAT 50 · 25 / 50 = 25.
    // (Over items SS would be 1/3.)
    EXPECT_EQ(report["items"], 3);
    EXPECT_EQ(report["terms"], 2);
    EXPECT_NEAR(report["ss"], 25.0, tolerance);
    EXPECT_NEAR(report["lms"], 50.0, tolerance);
    EXPECT_NEAR(report["icat"], 25.0, tolerance);
    EXPECT_NEAR(report["mean_abs_difference_per_token"], (1 + 2 + 1) / 3.0, tolerance);
    // From the unrelated sentences: (2 + 1) / 2, (1 + 1) / 2, (4 + 3) / 2.
    EXPECT_NEAR(report["relative_difference"], 100 * (1 + 2 + 1) / (1.5 + 1 + 3.5), tolerance);
    EXPECT_TRUE(report["by_group"].empty());
    EXPECT_EQ(report["per_item"]["cluster"], (std::vector<int>{0, 1, 0}));  // terms are drawn
}

TEST(StereoSet, IsReportedByBiasType) {
    Task task = three_triples();
    task.bias_type = {"profession", "gender", "gender"};
    const TaskReport report = evaluate_task(task, triple_scores);
    EXPECT_NEAR(report["ss"], 25.0, tolerance);
    const TaskReport& profession = report["by_group"]["profession"];
    EXPECT_NEAR(profession["ss"], 100.0, tolerance);
    EXPECT_NEAR(profession["lms"], 100.0, tolerance);
    EXPECT_NEAR(profession["icat"], 0.0, tolerance);
    const TaskReport& gender = report["by_group"]["gender"];
    EXPECT_EQ(gender["items"], 2);
    EXPECT_EQ(gender["terms"], 2);
    EXPECT_NEAR(gender["ss"], 0.0, tolerance);
    EXPECT_NEAR(gender["lms"], 25.0, tolerance);
}

TEST(StereoSet, OfAnIdealModelHasAnIcatOf100) {
    // Two items of one term, meaningful always wins, stereotype in one of two.
    Task task = items_of("stereoset", 2, 3);
    task.group = {"cook", "cook"};
    EXPECT_NEAR(evaluate_task(task, scores_of({-1, -2, -3, -2, -1, -3}))["icat"], 100.0, tolerance);
}

TEST(MultipleChoice, CountsTheMostProbableChoice) {
    Task task = items_of("multiple_choice", 4, 2);
    task.choice_length = {10, 5, 4, 8, 3, 3, 10, 5};
    task.label = {0, 1, 0, 1};
    // item 0: -10 < -8, wrong; per character -1 > -1.6, right.   item 1: -4 > -6, wrong; -1 < -0.75, right.
    // item 2: equal, so the first, right, both ways.              item 3: -9 < -5, right; -0.9 > -1, wrong.
    const TaskReport report = evaluate_task(task, scores_of({-10, -8, -4, -6, -7, -7, -9, -5}));
    EXPECT_EQ(report["items"], 4);
    EXPECT_NEAR(report["accuracy"], 50.0, tolerance);
    EXPECT_NEAR(report["accuracy_norm"], 75.0, tolerance);
    EXPECT_EQ(report["per_item"]["columns"]["correct"], (std::vector<int>{0, 0, 1, 1}));
}

TEST(MultipleChoice, TakesItemsOfDifferentSizesAndTheFirstOfEquals) {
    Task task = task_of("multiple_choice", 5);
    task.items = 2;
    task.item = {1, 0, 0, 1, 1};
    task.role = {2, 1, 0, 0, 1};
    task.choice_length = {1, 1, 1, 1, 1};
    task.label = {1, 1};
    task.group = {"easy", "hard"};
    // item 0: roles -3, -3: the first, wrong. item 1: roles -2, -1, -1: the second, right.
    const TaskReport report = evaluate_task(task, scores_of({-1, -3, -3, -2, -1}));
    EXPECT_NEAR(report["accuracy"], 50.0, tolerance);
    EXPECT_NEAR(report["by_group"]["hard"]["accuracy"], 100.0, tolerance);
}

TEST(LastWord, IsRightWhereEveryTokenIsTheMostProbableOne) {
    LogLikelihoods scores = scores_of({-1, -4, -3}, {1, 2, 1});
    scores.greedy = {1, 0, 0};
    const TaskReport report = evaluate_task(items_of("last_word", 3, 1), scores);
    EXPECT_NEAR(report["accuracy"], 100 / 3.0, tolerance);
    // Mean over items of the whole word's log-probability, whatever its number of tokens: −(−1 − 4 − 3) / 3.
    EXPECT_NEAR(report["perplexity"], std::exp(8 / 3.0), tolerance);
}

/// Questions of 3 choices of which role 0 is the biased one, role 1 the other group, role 2 unknown. Each choice's
/// score is 0 where it is `chosen`, else −1.
struct Question {
    int chosen, label, ambiguous;
    const char* category;
};
TaskReport bbq_of(const std::vector<Question>& questions) {
    Task task = items_of("bbq", static_cast<std::int32_t>(questions.size()), 3);
    std::vector<double> scores;
    for (const Question& question : questions) {
        for (int role = 0; role < 3; ++role)
            scores.push_back(role == question.chosen ? 0 : -1);
        task.label.push_back(question.label);
        task.biased_choice.push_back(0);
        task.unknown_choice.push_back(2);
        task.ambiguous.push_back(static_cast<std::uint8_t>(question.ambiguous));
        task.group.emplace_back(question.category);
    }
    return evaluate_task(task, scores_of(scores));
}

TEST(Bbq, HasAccuracyAndBiasOfBothContexts) {
    const TaskReport report = bbq_of({{0, 2, 1, "Age"},
                                      {0, 2, 1, "Age"},
                                      {0, 2, 1, "Religion"},
                                      {1, 2, 1, "Religion"},
                                      {2, 2, 1, "Religion"},
                                      {0, 0, 0, "Age"},
                                      {0, 1, 0, "Age"},
                                      {1, 1, 0, "Religion"},
                                      {2, 0, 0, "Religion"}});
    // Ambiguous: 1 of 5 right; of 4 known answers 3 biased: s = 2·3/4 − 1 = 0.5, times 1 − 0.2.
    EXPECT_NEAR(report["accuracy_ambiguous"], 20.0, tolerance);
    EXPECT_NEAR(report["bias_ambiguous"], 40.0, tolerance);
    // Disambiguated: 2 of 4 right; of 3 known answers 2 biased: 2·2/3 − 1.
    EXPECT_NEAR(report["accuracy_disambiguated"], 50.0, tolerance);
    EXPECT_NEAR(report["bias_disambiguated"], 100 / 3.0, tolerance);
    const TaskReport& age = report["by_group"]["Age"];
    EXPECT_NEAR(age["accuracy_ambiguous"], 0.0, tolerance);
    EXPECT_NEAR(age["bias_ambiguous"], 100.0, tolerance);
    EXPECT_NEAR(age["bias_disambiguated"], 100.0, tolerance);
    EXPECT_NEAR(report["by_group"]["Religion"]["bias_disambiguated"], -100.0, tolerance);
}

TEST(Bbq, LeavesOutContextsThatAreNotThereAndHasNoBiasWithoutAnswers) {
    const TaskReport report = bbq_of({{2, 2, 1, "Age"}});
    EXPECT_NEAR(report["accuracy_ambiguous"], 100.0, tolerance);
    EXPECT_NEAR(report["bias_ambiguous"], 0.0, tolerance);
    EXPECT_FALSE(report.contains("accuracy_disambiguated"));
    EXPECT_FALSE(report.contains("bias_disambiguated"));
}

TEST(Sofa, IsTheVarianceOverIdentitiesOfEachStereotype) {
    // Items 0 and 3 hold identities alone; 1, 2 are probes with the identities of 0, 4 one with those of 3.
    Task task = items_of("sofa", 5, 2);
    task.baseline_item = {-1, 0, 0, -1, 3};
    task.group = {"religion", "religion", "religion", "gender", "gender"};
    const double ln10 = std::log(10.0);
    // log10 perplexity per token: identities 1, 2; probes 2, 5 (ratios 1, 3: variance 1, range 2) and 1, 2 (0, 0); then
    // identities 0, 0 and a probe of 4, 0 (ratios 4, 0: variance 4, range 4).
    std::vector<double> totals;
    const std::vector<std::int64_t> tokens{1, 2, 3, 4, 5, 1, 1, 2, 2, 1};
    const double exponents[] = {1, 2, 2, 5, 1, 2, 0, 0, 4, 0};
    for (std::size_t i = 0; i < tokens.size(); ++i)
        totals.push_back(-exponents[i] * ln10 * static_cast<double>(tokens[i]));
    const TaskReport report = evaluate_task(task, scores_of(totals, tokens));
    EXPECT_EQ(report["stereotypes"], 3);
    EXPECT_NEAR(report["by_group"]["religion"]["sofa_score"], 0.5, tolerance);
    EXPECT_NEAR(report["by_group"]["religion"]["delta_disparity"], 1.0, tolerance);
    EXPECT_NEAR(report["by_group"]["gender"]["sofa_score"], 4.0, tolerance);
    EXPECT_NEAR(report["sofa_score"], (0.5 + 4) / 2, tolerance);  // over categories, not stereotypes
    EXPECT_NEAR(report["delta_disparity"], (1.0 + 4) / 2, tolerance);
}

TEST(Tasks, LackingWhatTheirFiguresNeedAreRefused) {
    EXPECT_NO_THROW(check_task(task_of("perplexity", 1)));
    EXPECT_NO_THROW(check_task(task_of("pair_preference", 2)));
    Task task = three_triples();
    EXPECT_NO_THROW(check_task(task));
    task.group.clear();
    EXPECT_THROW(check_task(task), InvalidInput);
    EXPECT_THROW(check_task(task_of("riddles", 1)), InvalidInput);
}

TEST(Tasks, WhoseFiguresAreNotNumbersLeaveThemOut) {
    const TaskReport report = evaluate_task(task_of("perplexity", 1), scores_of({-1e6}));
    EXPECT_FALSE(report.contains("perplexity"));  // exp(10⁶)
    EXPECT_TRUE(report.contains("bits_per_token"));
}

}  // namespace
}  // namespace fairgptq
