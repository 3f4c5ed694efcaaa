#include "eval/comparison.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "eval/report.hpp"

namespace fairgptq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Task words() {
    Task task;
    task.name = "wikitext";
    task.kind = "perplexity";
    task.sequences = {{5, 6, 7, 8}, {0, 4}};
    task.scored_from = {1};
    return task;
}

/// So many pairs; `lead[i]` is how much more probable item i's stereotypical sentence is, one token each.
Task pairs(std::size_t count) {
    Task task;
    task.name = "crows";
    task.kind = "pair_preference";
    for (std::size_t i = 0; i < 2 * count; ++i) {
        task.sequences.ids.insert(task.sequences.ids.end(), {1, static_cast<std::int32_t>(i)});
        task.sequences.offsets.push_back(task.sequences.tokens());
        task.scored_from.push_back(1);
        task.item.push_back(static_cast<std::int32_t>(i / 2));
        task.role.push_back(static_cast<std::int32_t>(i % 2));
    }
    task.items = static_cast<std::int64_t>(count);
    return task;
}
LogLikelihoods scores_by(const std::vector<double>& lead) {
    LogLikelihoods scores;
    for (const double difference : lead) {
        scores.total.insert(scores.total.end(), {-1.0, -1.0 - difference});
        scores.tokens.insert(scores.tokens.end(), {1, 1});
        scores.greedy.insert(scores.greedy.end(), {0, 0});
    }
    return scores;
}

nlohmann::json report_of(const std::vector<Task>& tasks, const std::vector<LogLikelihoods>& scores) {
    return make_report({"/models/m", "", nullptr}, "tokens.h5", tasks, scores);
}
nlohmann::json pairs_report(const std::vector<double>& lead) {
    return report_of({pairs(lead.size())}, {scores_by(lead)});
}

/// Noise around `mean` that is the same for every model: only a paired comparison sees past it.
std::vector<double> noisy(double mean, double extra = 0) {
    std::vector<double> lead;
    for (int i = 0; i < 40; ++i)
        lead.push_back(mean + (i * 17 % 40) / 10.0 + (i % 3 - 1) * extra);
    return lead;
}

const ComparedRow& row_of(const Comparison& comparison, std::string_view key) {
    for (const ComparedRow& row : comparison.rows)
        if (row.key == key) return row;
    throw std::out_of_range(std::string(key));
}

TEST(Comparison, HasARowPerTaskAndFigure) {
    const std::vector<nlohmann::json> reports{report_of({words(), pairs(1)}, {{{-6.0}, {3}, {0}}, scores_by({-1.25})}),
                                              report_of({words()}, {{{-6.0}, {3}, {0}}})};
    EXPECT_EQ(as_table(compare_reports(reports, {"original", "other"})),
              "                               original  other\n"
              "-----------------------------  --------  -----\n"
              "crows: stereotype preferred %    0.0000      –\n"
              "crows: mean |Δ|                   1.250      –\n"
              "crows: mean |Δ| per token         1.250      –\n"
              "wikitext: perplexity              7.389  7.389\n"
              "wikitext: bits per token          2.885  2.885\n"
              "not tested for noise: wikitext (too few items for an interval, or other data in the reports)\n");
}

TEST(Comparison, MarksWhatDiffersByMoreThanNoise) {
    // Every pair 0.1 further apart, where the pairs themselves lie 4 apart: significant only item by item. And 0.1 on
    // average, one third of them by 0.9 less: not significant.
    const std::vector<nlohmann::json> reports{pairs_report(noisy(1)), pairs_report(noisy(1.1)),
                                              pairs_report(noisy(1.01, 1))};
    const Comparison comparison = compare_reports(reports, {"a", "b", "c"});
    const ComparedRow& distance = row_of(comparison, "mean_abs_difference");
    EXPECT_FALSE(distance.figures[0].significant());
    EXPECT_TRUE(distance.figures[1].significant());
    EXPECT_FALSE(distance.figures[2].significant());
    EXPECT_NEAR(distance.figures[1].difference.lower, 0.1, 1e-6);
    EXPECT_NEAR(distance.figures[1].difference.upper, 0.1, 1e-6);
    // The intervals of the figures themselves overlap.
    EXPECT_LT(distance.figures[1].interval.lower, distance.figures[0].interval.upper);
    // Nothing was preferred otherwise.
    EXPECT_FALSE(row_of(comparison, "stereotype_preferred").figures[1].significant());
    const std::string table = as_table(comparison);
    EXPECT_THAT(table, HasSubstr("2.950  3.050*  2.9"));
    EXPECT_THAT(table, HasSubstr("\n* differs from the first column"));
    EXPECT_TRUE(comparison.untested().empty());
}

TEST(Comparison, OfOtherDataOrWithoutItemsTestsNothing) {
    nlohmann::json bare = pairs_report(noisy(3));
    bare["tasks"]["crows"].erase("per_item");
    nlohmann::json other = pairs_report(noisy(3));
    other["tasks"]["crows"]["data"] = "of another file";
    const std::vector<nlohmann::json> reports{pairs_report(noisy(1)), bare, other};
    const Comparison comparison = compare_reports(reports, {"a", "b", "c"});
    for (const ComparedRow& row : comparison.rows)
        for (const ComparedFigure& figure : row.figures)
            EXPECT_FALSE(figure.difference.known()) << row.key;
    for (const std::string& text : {as_table(comparison), as_markdown(comparison)})
        EXPECT_THAT(text, HasSubstr("\nnot tested for noise: crows (")) << text;
    EXPECT_THAT(tasks_of_different_data(reports), ElementsAre("crows"));
    EXPECT_TRUE(tasks_of_different_data(std::span(reports).first(2)).empty());
}

TEST(Comparison, OfGroupsDrawsTheirItemsAlone) {
    // 40 items whose sentences lie 1 apart in both models, but for the 10 of the group "age", 0.5 further in the
    // second.
    Task task = pairs(40);
    std::vector<double> base(40, 1), other(40, 1);
    for (std::size_t item = 0; item < 40; ++item) {
        task.group.emplace_back(item % 4 == 0 ? "age" : "race");
        if (item % 4 == 0) other[item] = 1.5;
    }
    nlohmann::json without = report_of({task}, {scores_by(other)});
    without["tasks"]["crows"]["by_group"].erase("age");
    const std::vector<nlohmann::json> reports{report_of({task}, {scores_by(base)}),
                                              report_of({task}, {scores_by(other)}), without};
    EXPECT_EQ(compare_reports(reports, {"a", "b", "c"}).rows.size(), 3U);
    const Comparison comparison = compare_reports(reports, {"a", "b", "c"}, true);
    ASSERT_EQ(comparison.rows.size(), 9U);
    const ComparedRow& all = comparison.rows[1];
    const ComparedRow& age = comparison.rows[4];
    const ComparedRow& race = comparison.rows[7];
    EXPECT_EQ(all.group, "");
    EXPECT_EQ(age.group, "age");
    EXPECT_EQ(race.group, "race");
    EXPECT_EQ(age.key, "mean_abs_difference");
    EXPECT_NEAR(age.figures[1].value.value(), 1.5, 1e-12);
    EXPECT_NEAR(age.figures[1].difference.lower, 0.5, 1e-6);  // each of its items, whichever are drawn
    EXPECT_NEAR(age.figures[1].difference.upper, 0.5, 1e-6);
    EXPECT_TRUE(age.figures[1].significant());
    EXPECT_FALSE(age.figures[2].value.has_value());
    EXPECT_FALSE(race.figures[1].significant());
    EXPECT_NEAR(all.figures[1].value.value(), 1.125, 1e-12);
    EXPECT_THAT(as_table(comparison), HasSubstr("crows, age: mean |Δ|"));
    EXPECT_THAT(as_csv(comparison), HasSubstr("crows,mean_abs_difference,b,1.5,1.5,1.5,0.5,0.5,true,age\n"));
    const nlohmann::json json = nlohmann::json::parse(as_json(comparison));
    EXPECT_TRUE(json["rows"][1]["group"].is_null());
    EXPECT_EQ(json["rows"][4]["group"], "age");
}

TEST(Comparison, IsWrittenAsMarkdownCsvAndJson) {
    const std::vector<nlohmann::json> reports{pairs_report(noisy(1)), pairs_report(noisy(1.1))};
    const Comparison comparison = compare_reports(reports, {"a|b", "c, \"d\""});
    EXPECT_THAT(as_markdown(comparison), HasSubstr("|  | a\\|b | c, \"d\" |\n| --- | ---: | ---: |\n"));
    EXPECT_THAT(as_markdown(comparison), HasSubstr("| crows: mean \\|Δ\\| | 2.950 | 3.050\\* |\n"));
    const std::string csv = as_csv(comparison);
    EXPECT_THAT(
        csv, HasSubstr("task,figure,report,value,lower,upper,difference_lower,difference_upper,significant,group\n"));
    EXPECT_THAT(csv, HasSubstr("crows,mean_abs_difference,a|b,2.95,"));
    EXPECT_THAT(csv, HasSubstr("crows,mean_abs_difference,\"c, \"\"d\"\"\",3.05"));
    EXPECT_THAT(csv, HasSubstr(",true,\n"));
    EXPECT_THAT(csv, HasSubstr(",,,,\n"));  // the first report differs from nothing
    const nlohmann::json json = nlohmann::json::parse(as_json(comparison));
    EXPECT_THAT(json["columns"], ElementsAre("a|b", "c, \"d\""));
    EXPECT_EQ(json["rows"][1]["figure"], "mean_abs_difference");
    EXPECT_NEAR(json["rows"][1]["values"][1], 3.05, 1e-12);
    EXPECT_EQ(json["rows"][1]["significant"], (nlohmann::json{nullptr, true}));
    EXPECT_TRUE(json["rows"][1]["differences"][0].is_null());
}

}  // namespace
}  // namespace fairgptq
