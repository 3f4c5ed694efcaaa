#include "eval/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "eval/metrics.hpp"
#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

constexpr const char* report_format = "fairgptq-report";
constexpr int report_version = 1;

std::string title_of(const nlohmann::json& report) {
    const nlohmann::json& settings = report["settings"];
    if (settings.is_null()) return "original";
    const double alpha = settings["alpha"].get<double>();
    // Modules that are left as they are, or quantized otherwise.
    const std::string but = fmt::format("{}{}", settings.contains("ignore") ? ", some modules ignored" : "",
                                        settings.contains("module_map") ? ", grids by map" : "");
    if (!settings.value("alpha_map", nlohmann::json::array()).empty()) return "Fair-GPTQ, α by map" + but;
    // Damping that leaves nothing of H passes no error on to later columns.
    const nlohmann::json damp = settings.value("damp", nlohmann::json());
    const char* method = damp.is_number() && damp.get<double>() >= 1e6 ? "Round-to-nearest" : "GPTQ";
    if (alpha == 0) return fmt::format("{} {}-bit{}", method, settings["bits"].get<int>(), but);
    const nlohmann::json pairs = settings.value("pairs", nlohmann::json());  // a control, or the pairs as given
    return fmt::format("Fair-GPTQ α={:g}{}{}", alpha,
                       pairs.is_string() ? fmt::format(", {} pairs", pairs.get<std::string>()) : "", but);
}

/// Where a report's model or run lies.
std::filesystem::path place_of(const nlohmann::json& report) {
    std::filesystem::path path = (report["run"].is_null() ? report["model"] : report["run"]).get<std::string>();
    return path.has_filename() ? path : path.parent_path();
}

/// The last `parts` names of a path.
std::string end_of(const std::filesystem::path& path, std::ptrdiff_t parts) {
    std::filesystem::path end;
    for (auto part = std::prev(path.end(), std::min(parts, std::distance(path.begin(), path.end())));
         part != path.end(); ++part)
        end /= *part;
    return end.string();
}

/// As few last names of each path as tell them apart; of equal paths the last one.
std::vector<std::string> distinct_ends(const std::vector<std::filesystem::path>& paths) {
    constexpr std::ptrdiff_t most = 64;
    const auto ends_of = [&](std::ptrdiff_t parts) {
        std::vector<std::string> ends;
        for (const std::filesystem::path& path : paths)
            ends.push_back(end_of(path, parts));
        return ends;
    };
    for (std::ptrdiff_t parts = 1; parts <= most; ++parts) {
        std::vector<std::string> ends = ends_of(parts);
        if (std::set(ends.begin(), ends.end()).size() == std::set(paths.begin(), paths.end()).size()) return ends;
    }
    return ends_of(most);
}

void check_part(const nlohmann::json& part, const std::string& where) {
    if (!part.is_object()) throw InvalidInput("{} is not an object", where);
    if (!part.value("data", nlohmann::json()).is_string()) throw InvalidInput("{}: \"data\" is not a string", where);
    const nlohmann::json kind = part.value("kind", nlohmann::json());
    if (!kind.is_string()) throw InvalidInput("{}: \"kind\" is not a string", where);
    for (const Metric* metric : all_metrics()) {
        if (metric->kind != kind.get_ref<const std::string&>()) continue;
        for (const Figure& figure : metric->figures)
            if (part.contains(figure.key) && !part[figure.key].is_number())
                throw InvalidInput("{}: \"{}\" is not a number", where, figure.key);
        if (part.contains("per_item")) (void)item_table_from_json(part["per_item"], metric->columns, where);
        return;
    }
    throw InvalidInput("{}: the kind \"{}\" is not known", where, kind.get<std::string>());
}

}  // namespace

std::string hash_of_data(const Task& task) {
    const auto hash = [](const auto& values) { return hash_of(std::as_bytes(std::span(values))); };
    std::string parts = hash(task.sequences.ids) + hash(task.sequences.offsets) + hash(task.scored_from) +
                        hash(task.item) + hash(task.role);
    // Only what a task has: a kind that gains something leaves the others' hashes what they were.
    for (const auto* values :
         {&task.label, &task.choice_length, &task.unknown_choice, &task.biased_choice, &task.baseline_item})
        if (!values->empty()) parts += hash(*values);
    if (!task.ambiguous.empty()) parts += hash(task.ambiguous);
    for (const auto* names : {&task.group, &task.bias_type}) {
        std::string text = names == &task.group ? "group" : "bias_type";
        for (const std::string& name : *names)
            text += fmt::format("{}:{}", name.size(), name);
        if (!names->empty()) parts += hash_of(text);
    }
    return hash_of(parts);
}

nlohmann::ordered_json make_report(const Subject& subject, const std::filesystem::path& tokens_file,
                                   std::span<const Task> tasks, std::span<const LogLikelihoods> scores) {
    nlohmann::ordered_json report{{"format", report_format}, {"version", report_version}, {"model", subject.model}};
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
    if (report.value("format", nlohmann::json()) != report_format)
        throw InvalidInput("{} is not a report of `fairgptq eval` (its \"format\" is not \"{}\")", name, report_format);
    if (report.value("version", nlohmann::json()) != report_version)
        throw InvalidInput("{} is a report of another version than {}, which this program reads", name, report_version);
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
    for (const auto& [task, part] : tasks.items())
        check_part(part, fmt::format("{}: task \"{}\"", name, task));
    return report;
}

std::vector<std::string> report_titles(std::span<const nlohmann::json> reports,
                                       std::span<const std::filesystem::path> files) {
    std::vector<std::string> titles;
    std::map<std::string, std::vector<std::size_t>> alike;
    for (std::size_t report = 0; report < reports.size(); ++report)
        alike[titles.emplace_back(title_of(reports[report]))].push_back(report);
    for (const auto& [title, places] : alike) {
        if (places.size() == 1) continue;
        std::vector<std::filesystem::path> paths;
        for (const std::size_t place : places)
            paths.push_back(place_of(reports[place]));
        if (!files.empty() && std::set(paths.begin(), paths.end()).size() < paths.size())
            for (std::size_t index = 0; index < places.size(); ++index)
                paths[index] = files[places[index]];
        const std::vector<std::string> ends = distinct_ends(paths);
        for (std::size_t index = 0; index < places.size(); ++index)
            titles[places[index]] += fmt::format(" ({})", ends[index]);
    }
    return titles;
}

}  // namespace fairgptq
