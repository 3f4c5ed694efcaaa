#include "eval/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "eval/metrics.hpp"
#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/json.hpp"
#include "support/table.hpp"

namespace fairgptq {
namespace {

constexpr const char* format_name = "fairgptq-report";
constexpr int format_version = 1;

/// The figures that a table shows, in this order; counts are in the file only.
constexpr std::array<std::pair<const char*, const char*>, 7> figures{{
    {"perplexity", "perplexity"},
    {"ss", "SS %"},
    {"lms", "LMS %"},
    {"icat", "ICAT %"},
    {"stereotype_preferred", "stereotype preferred %"},
    {"mean_abs_difference", "mean |Δ|"},
    {"mean_abs_difference_per_token", "mean |Δ| per token"},
}};

std::string hash_of_data(const Task& task) {
    const auto hash = [](const auto& values) { return hash_of(std::as_bytes(std::span(values))); };
    return hash_of(hash(task.sequences.ids) + hash(task.sequences.offsets) + hash(task.scored_from) + hash(task.item) +
                   hash(task.role));
}

std::string title_of(const nlohmann::json& report) {
    const nlohmann::json& settings = report["settings"];
    if (settings.is_null()) return "original";
    const double alpha = settings["alpha"].get<double>();
    if (!settings.value("alpha_map", nlohmann::json::array()).empty()) return "Fair-GPTQ, α by map";
    return alpha == 0 ? fmt::format("GPTQ {}-bit", settings["bits"].get<int>())
                      : fmt::format("Fair-GPTQ α={:g}", alpha);
}

}  // namespace

nlohmann::ordered_json make_report(const Subject& subject, const std::filesystem::path& tokens_file,
                                   std::span<const Task> tasks, std::span<const LogLikelihoods> scores) {
    nlohmann::ordered_json report{{"format", format_name}, {"version", format_version}, {"model", subject.model}};
    report["run"] = subject.run.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(subject.run);
    report["settings"] = subject.settings;
    report["tokens_file"] = tokens_file.string();
    report["tasks"] = nlohmann::ordered_json::object();
    for (std::size_t task = 0; task < tasks.size(); ++task) {
        TaskReport part = evaluate_task(tasks[task], scores[task]);
        part["data"] = hash_of_data(tasks[task]);
        report["tasks"][tasks[task].name] = std::move(part);
    }
    return report;
}

nlohmann::json read_report(const std::filesystem::path& file) {
    const std::string name = file.string();
    nlohmann::json report = read_json_object(file);
    if (report.value("format", nlohmann::json()) != format_name)
        throw InvalidInput("{} is not a report of `fairgptq eval` (its \"format\" is not \"{}\")", name, format_name);
    if (report.value("version", nlohmann::json()) != format_version)
        throw InvalidInput("{} is a report of another version than {}, which this program reads", name, format_version);
    if (!report.value("model", nlohmann::json()).is_string()) throw InvalidInput("{}: \"model\" is not a string", name);
    nlohmann::json& settings = report["settings"];
    if (!settings.is_null() && !(settings.is_object() && settings.value("alpha", nlohmann::json()).is_number() &&
                                 settings.value("bits", nlohmann::json()).is_number_integer()))
        throw InvalidInput("{}: \"settings\" is neither null nor a run's settings with \"alpha\" and \"bits\"", name);
    nlohmann::json& run = report["run"];
    if (run.is_string() ? settings.is_null() : !run.is_null() || !settings.is_null())
        throw InvalidInput("{}: \"run\" is not a string beside its \"settings\", nor are both null", name);
    const nlohmann::json& tasks = report.value("tasks", nlohmann::json());
    if (!tasks.is_object() || tasks.empty())
        throw InvalidInput("{}: \"tasks\" is not an object that holds tasks", name);
    for (const auto& [task, part] : tasks.items()) {
        if (!part.is_object()) throw InvalidInput("{}: task \"{}\" is not an object", name, task);
        if (!part.value("data", nlohmann::json()).is_string())
            throw InvalidInput("{}: \"data\" of task \"{}\" is not a string", name, task);
        for (const auto& [key, label] : figures)
            if (part.contains(key) && !part[key].is_number())
                throw InvalidInput("{}: \"{}\" of task \"{}\" is not a number", name, key, task);
    }
    return report;
}

std::vector<std::string> report_titles(std::span<const nlohmann::json> reports) {
    std::map<std::string, int> uses;
    for (const nlohmann::json& report : reports)
        ++uses[title_of(report)];
    std::vector<std::string> titles;
    for (const nlohmann::json& report : reports) {
        std::string title = title_of(report);
        if (uses[title] > 1) {
            const nlohmann::json& where = report["run"].is_null() ? report["model"] : report["run"];
            std::filesystem::path path = where.get<std::string>();
            if (!path.has_filename()) path = path.parent_path();
            title += fmt::format(" ({})", path.filename().string());
        }
        titles.push_back(std::move(title));
    }
    return titles;
}

std::string comparison_table(std::span<const nlohmann::json> reports, const std::vector<std::string>& titles) {
    std::set<std::string> tasks;
    for (const nlohmann::json& report : reports)
        for (const auto& [task, part] : report["tasks"].items())
            tasks.insert(task);
    std::vector<std::vector<std::string>> rows{{""}};
    rows.front().insert(rows.front().end(), titles.begin(), titles.end());
    for (const std::string& task : tasks)
        for (const auto& [key, label] : figures) {
            std::vector<std::string> row{fmt::format("{}: {}", task, label)};
            bool any = false;
            for (const nlohmann::json& report : reports) {
                const nlohmann::json part = report["tasks"].value(task, nlohmann::json::object());
                const auto figure = part.find(key);
                any = any || figure != part.end();
                row.push_back(figure == part.end() ? "–" : format_figure(figure->get<double>()));
            }
            if (any) rows.push_back(std::move(row));
        }
    return format_table(rows);
}

std::vector<std::string> tasks_of_different_data(std::span<const nlohmann::json> reports) {
    std::map<std::string, std::set<std::string>> data;
    for (const nlohmann::json& report : reports)
        for (const auto& [task, part] : report["tasks"].items())
            data[task].insert(part["data"].get<std::string>());
    std::vector<std::string> names;
    for (const auto& [task, hashes] : data)
        if (hashes.size() > 1) names.push_back(task);
    return names;
}

}  // namespace fairgptq
