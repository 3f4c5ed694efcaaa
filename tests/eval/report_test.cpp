#include "eval/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "support/error.hpp"
#include "support_files/refusal.hpp"
#include "support_files/temporary_folder.hpp"

namespace fairgptq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

std::vector<Task> two_tasks() {
    Task words;
    words.name = "wikitext";
    words.kind = "perplexity";
    words.sequences = {{5, 6, 7, 8}, {0, 4}};
    words.scored_from = {1};
    Task pairs;
    pairs.name = "crows";
    pairs.kind = "pair_preference";
    pairs.sequences = {{1, 2, 1, 3}, {0, 2, 4}};
    pairs.scored_from = {1, 1};
    pairs.item = {0, 0};
    pairs.role = {0, 1};
    pairs.group = {"race"};
    pairs.items = 1;
    return {words, pairs};
}

const std::vector<LogLikelihoods> two_scores{{{-6.0}, {3}, {0}}, {{-2.5, -1.25}, {1, 1}, {0, 0}}};

nlohmann::json report_of(const Subject& subject) {
    return make_report(subject, "tokens.h5", two_tasks(), two_scores);
}
const Subject original{"/models/m", "", nullptr};
Subject run_with(double alpha, const std::string& run, int bits = 4) {
    return {"/models/m", run, {{"alpha", alpha}, {"bits", bits}, {"solver", "joint"}}};
}

TEST(Report, DataOfOtherGroupsAreOtherData) {
    Task task = two_tasks()[1];
    const std::string before = hash_of_data(task);
    EXPECT_EQ(hash_of_data(two_tasks()[1]), before);
    std::vector<std::string> seen{before};
    const auto expect_new = [&](const char* what) {
        const std::string hash = hash_of_data(task);
        EXPECT_EQ(std::count(seen.begin(), seen.end(), hash), 0) << what;
        seen.push_back(hash);
    };
    task.group = {"age"};
    expect_new("another group");
    task.group = {"a", "ge"};
    expect_new("two groups of the same letters");
    task.group = {"ag", "e"};
    expect_new("cut elsewhere");
    task.group.clear();
    expect_new("none");
    task.bias_type = {"race"};
    expect_new("a type of bias is no group");
}

TEST(Report, HoldsModelSettingsAndFigures) {
    const nlohmann::json report = report_of(run_with(0.1, "/runs/fair"));
    EXPECT_EQ(report["format"], "fairgptq-report");
    EXPECT_EQ(report["version"], 1);
    EXPECT_EQ(report["model"], "/models/m");
    EXPECT_EQ(report["run"], "/runs/fair");
    EXPECT_EQ(report["settings"]["alpha"], 0.1);
    EXPECT_EQ(report["tokens_file"], "tokens.h5");
    EXPECT_NEAR(report["tasks"]["wikitext"]["perplexity"], std::exp(2.0), 1e-14);
    EXPECT_EQ(report["tasks"]["crows"]["by_group"]["race"]["mean_abs_difference"], 1.25);
    EXPECT_TRUE(report_of(original)["run"].is_null());
    EXPECT_TRUE(report_of(original)["settings"].is_null());
}

TEST(Report, IsReadBackAsWritten) {
    const TemporaryFolder folder;
    const nlohmann::json report = report_of(run_with(0.1, "/runs/fair"));
    std::ofstream(folder / "r.json") << report.dump(2);
    EXPECT_EQ(read_report(folder / "r.json"), report);
}

TEST(Report, OfAnotherFormIsRefused) {
    const TemporaryFolder folder;
    const auto message = [&](const std::function<void(nlohmann::json&)>& change) {
        nlohmann::json report = report_of(run_with(0.1, "/runs/fair"));
        change(report);
        std::ofstream(folder / "r.json") << report.dump();
        return testing::refusal_of([&] { read_report(folder / "r.json"); });
    };
    EXPECT_EQ(message([](auto&) {}), "");
    EXPECT_THAT(message([](auto& r) { r.erase("format"); }), HasSubstr("r.json is not a report of `fairgptq eval`"));
    EXPECT_THAT(message([](auto& r) { r["version"] = 2; }), HasSubstr("another version than 1"));
    EXPECT_THAT(message([](auto& r) { r["version"] = "1"; }), HasSubstr("another version than 1"));
    EXPECT_THAT(message([](auto& r) { r["model"] = 3; }), HasSubstr("\"model\" is not a string"));
    EXPECT_THAT(message([](auto& r) { r["settings"]["alpha"] = "0.1"; }),
                HasSubstr("\"settings\" is neither null nor"));
    EXPECT_THAT(message([](auto& r) { r["settings"] = nullptr; }),
                HasSubstr("\"run\" is not a string beside its \"settings\""));
    EXPECT_THAT(message([](auto& r) { r["run"] = nullptr; }),
                HasSubstr("\"run\" is not a string beside its \"settings\""));
    EXPECT_THAT(message([](auto& r) { r["tasks"] = nlohmann::json::array(); }),
                HasSubstr("\"tasks\" is not an object"));
    EXPECT_THAT(message([](auto& r) { r.erase("tasks"); }), HasSubstr("\"tasks\" is not an object"));
    EXPECT_THAT(message([](auto& r) { r["tasks"]["crows"] = 1; }), HasSubstr("task \"crows\" is not an object"));
    EXPECT_THAT(message([](auto& r) { r["tasks"]["crows"]["mean_abs_difference"] = "1"; }),
                HasSubstr("task \"crows\": \"mean_abs_difference\" is not a number"));
    EXPECT_THAT(message([](auto& r) { r["tasks"]["crows"].erase("data"); }),
                HasSubstr("task \"crows\": \"data\" is not a string"));
    EXPECT_THAT(message([](auto& r) { r["tasks"]["crows"]["kind"] = "haiku"; }), HasSubstr("the kind \"haiku\""));
    EXPECT_THAT(message([](auto& r) { r["tasks"]["crows"].erase("kind"); }), HasSubstr("\"kind\" is not a string"));
    const auto items = [](nlohmann::json& r) -> nlohmann::json& { return r["tasks"]["crows"]["per_item"]; };
    EXPECT_THAT(message([&](auto& r) { items(r) = 1; }), HasSubstr("\"per_item\" holds no object \"columns\""));
    EXPECT_THAT(message([&](auto& r) { items(r)["columns"].erase("difference"); }),
                HasSubstr("\"per_item\" has no array \"difference\""));
    EXPECT_THAT(message([&](auto& r) { items(r)["columns"]["difference"] = nlohmann::json::array(); }),
                HasSubstr("\"per_item\" has no array \"difference\""));
    EXPECT_THAT(message([&](auto& r) { items(r)["columns"]["difference"] = {"a"}; }),
                HasSubstr("\"difference\" holds \"a\", not a number"));
    EXPECT_THAT(message([&](auto& r) {
                    items(r)["columns"]["difference_per_token"] = {1, 2};
                }),
                HasSubstr("\"difference_per_token\" has 2 items, the other columns have 1"));
    EXPECT_THAT(message([&](auto& r) { items(r)["group"] = {1}; }),
                HasSubstr("\"group\" holds 1, which is not a whole number below 1"));
    EXPECT_THAT(message([&](auto& r) { items(r)["group"] = {0, 0}; }), HasSubstr("for each of the 1 items"));
    EXPECT_THAT(message([&](auto& r) { items(r)["cluster"] = {-1}; }), HasSubstr("\"cluster\" holds -1"));
    EXPECT_THAT(message([&](auto& r) { items(r)["group_names"] = {1}; }), HasSubstr("\"group_names\" holds 1"));
}

TEST(Report, TitlesComeFromSettings) {
    const std::vector<nlohmann::json> distinct{report_of(original), report_of(run_with(0, "/runs/gptq")),
                                               report_of(run_with(0.1, "/runs/fair"))};
    EXPECT_THAT(report_titles(distinct), ElementsAre("original", "GPTQ 4-bit", "Fair-GPTQ α=0.1"));
    Subject control = run_with(0.1, "/runs/control");
    control.settings["pairs"] = "shuffled";
    EXPECT_THAT(report_titles(std::vector<nlohmann::json>{report_of(control)}),
                ElementsAre("Fair-GPTQ α=0.1, shuffled pairs"));
    const std::vector<nlohmann::json> alike{report_of(run_with(0.5, "/runs/four")),
                                            report_of(run_with(0.5, "/runs/three/", 3)),
                                            report_of(run_with(0, "/runs/gptq", 3))};
    EXPECT_THAT(report_titles(alike), ElementsAre("Fair-GPTQ α=0.5 (four)", "Fair-GPTQ α=0.5 (three)", "GPTQ 3-bit"));
    // Jobs keep their runs in work/JOB/run.
    const std::vector<nlohmann::json> of_jobs{report_of(run_with(0.5, "/runs/one/run")),
                                              report_of(run_with(0.5, "/runs/two/run")),
                                              report_of(run_with(0.5, "/runs/two/run/"))};
    EXPECT_THAT(report_titles(of_jobs),
                ElementsAre("Fair-GPTQ α=0.5 (one/run)", "Fair-GPTQ α=0.5 (two/run)", "Fair-GPTQ α=0.5 (two/run)"));
    // One model, measured twice: the reports are told apart by their own names.
    const std::vector<std::filesystem::path> files{"one/words.json", "two/words.json", "fair.json"};
    EXPECT_THAT(report_titles(std::vector<nlohmann::json>{report_of(original), report_of(original),
                                                          report_of(run_with(0.5, "/runs/fair"))},
                              files),
                ElementsAre("original (one/words.json)", "original (two/words.json)", "Fair-GPTQ α=0.5"));
    EXPECT_THAT(report_titles(alike, files),
                ElementsAre("Fair-GPTQ α=0.5 (four)", "Fair-GPTQ α=0.5 (three)", "GPTQ 3-bit"));
    Subject rounded = run_with(0, "/runs/rtn");
    rounded.settings["damp"] = 1e6;
    EXPECT_THAT(report_titles(std::vector<nlohmann::json>{report_of(rounded), report_of(run_with(0, "/runs/gptq"))}),
                ElementsAre("Round-to-nearest 4-bit", "GPTQ 4-bit"));
    Subject parts = run_with(0, "/runs/parts");
    parts.settings["ignore"] = {"o_proj"};
    Subject mixed = run_with(0.5, "/runs/mixed");
    mixed.settings["module_map"] = {{"*", {{"bits", 8}}}};
    EXPECT_THAT(report_titles(std::vector<nlohmann::json>{report_of(parts), report_of(mixed)}),
                ElementsAre("GPTQ 4-bit, some modules ignored", "Fair-GPTQ α=0.5, grids by map"));
}

}  // namespace
}  // namespace fairgptq
