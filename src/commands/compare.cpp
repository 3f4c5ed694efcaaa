// `fairgptq compare`: reports of `fairgptq eval` side by side.
#include <fmt/format.h>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "eval/comparison.hpp"
#include "eval/report.hpp"
#include "support/say.hpp"

namespace fairgptq::commands {

int compare(int argc, char** argv, Communicator&) {
    cxxopts::Options options("fairgptq compare", "Reports of `fairgptq eval` side by side, one column each");
    options.positional_help("REPORT.json REPORT.json …");
    options.add_options()  //
        ("names", "headings of the columns, in the reports' order: a list",
         cxxopts::value<std::vector<std::string>>())  //
        ("format", "table, markdown, csv or json; a star marks what differs from the first report by more than noise",
         cxxopts::value<std::string>()->default_value("table"))                        //
        ("by-group", "also each task's groups: bias types, categories, texts")         //
        ("reports", "reports to compare", cxxopts::value<std::vector<std::string>>())  //
        ("h,help", "show this");
    options.parse_positional({"reports"});
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    using Writer = std::string (*)(const Comparison&);
    constexpr Names<Writer, 4> writers{
        {{&as_table, "table"}, {&as_markdown, "markdown"}, {&as_csv, "csv"}, {&as_json, "json"}}};
    const Writer write = choose(*parsed, "format", writers);
    if (parsed->count("reports") == 0)
        throw InvalidInput("no report is given: fairgptq compare REPORT.json REPORT.json …");

    const auto& named = (*parsed)["reports"].as<std::vector<std::string>>();
    const std::vector<std::filesystem::path> files(named.begin(), named.end());
    std::vector<nlohmann::json> reports;
    for (const std::filesystem::path& file : files)
        reports.push_back(read_report(file));
    std::vector<std::string> titles = report_titles(reports, files);
    if (parsed->count("names") > 0) {
        titles = (*parsed)["names"].as<std::vector<std::string>>();
        if (titles.size() != reports.size())
            throw InvalidInput("--names has {} names for {} reports", titles.size(), reports.size());
    }
    fmt::print("{}", write(compare_reports(reports, std::move(titles), flag(*parsed, "by-group"))));
    for (const std::string& task : tasks_of_different_data(reports))
        say("fairgptq: warning: the reports' figures of task {} come from different sequences\n", task);
    return exit_done;
}

}  // namespace fairgptq::commands
