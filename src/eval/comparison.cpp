#include "eval/comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "support/json.hpp"
#include "support/table.hpp"

namespace fairgptq {
namespace {

constexpr const char* footnote =
    "* differs from the first column: the 95 % bootstrap interval of the difference on the same items leaves out 0";

/// One report's part on one task, or on a group of its items (empty: all of them); null if it has none.
const nlohmann::json* part_of(const nlohmann::json& report, const std::string& task, const Metric& metric,
                              const std::string& group) {
    const auto found = report["tasks"].find(task);
    if (found == report["tasks"].end() || (*found)["kind"] != metric.kind) return nullptr;
    if (group.empty()) return &*found;
    const auto groups = found->find("by_group");
    if (groups == found->end() || !groups->is_object()) return nullptr;
    const auto part = groups->find(group);
    return part == groups->end() || !part->is_object() ? nullptr : &*part;
}

Interval interval_of(const nlohmann::json& part, const char* key) {
    const nlohmann::json intervals = part.value("intervals", nlohmann::json());
    if (!intervals.is_object()) return {};
    const nlohmann::json ends = intervals.value(key, nlohmann::json());
    if (!ends.is_array() || ends.size() != 2 || !ends[0].is_number() || !ends[1].is_number()) return {};
    return {ends[0].get<double>(), ends[1].get<double>()};
}

/// The items of a task, or of one of its groups; nothing if the report does not hold them.
std::optional<ItemTable> items_of(const nlohmann::json& task, const Metric& metric, const std::string& group,
                                  const char* where) {
    if (!task.contains("per_item")) return std::nullopt;
    ItemTable items = item_table_from_json(task["per_item"], metric.columns, where);
    if (group.empty()) return items;
    const auto place = std::find(items.group_names.begin(), items.group_names.end(), group);
    if (place == items.group_names.end()) return std::nullopt;
    return items.of_group(static_cast<std::int32_t>(place - items.group_names.begin()));
}

/// [figures], all unknown unless both tasks have the same items of the same data.
std::vector<Interval> differences(const Metric& metric, const nlohmann::json& base, const nlohmann::json& other,
                                  const std::string& group) {
    const std::vector<Interval> none(metric.figures.size());
    if (base["data"] != other["data"] || base["kind"] != other["kind"]) return none;
    const auto base_items = items_of(base, metric, group, "the first report");
    const auto other_items = items_of(other, metric, group, "a report");
    if (!base_items || !other_items || base_items->cluster != other_items->cluster) return none;
    return bootstrap_difference(metric, *base_items, *other_items);
}

/// @param group of the task's items; empty: all of them
std::vector<ComparedRow> rows_of(const std::string& task, const Metric& metric, const std::string& group,
                                 std::span<const nlohmann::json> reports) {
    std::vector<ComparedRow> rows;
    for (const Figure& figure : metric.figures)
        rows.push_back({task, figure.key, figure.label == nullptr ? "" : figure.label,
                        std::vector<ComparedFigure>(reports.size()), group});
    const nlohmann::json* base = part_of(reports.front(), task, metric, {});
    for (std::size_t report = 0; report < reports.size(); ++report) {
        const nlohmann::json* part = part_of(reports[report], task, metric, group);
        if (part == nullptr) continue;
        std::vector<Interval> from_base(metric.figures.size());
        if (report > 0 && base != nullptr)
            from_base = differences(metric, *base, reports[report]["tasks"][task], group);
        for (std::size_t index = 0; index < rows.size(); ++index) {
            const char* key = metric.figures[index].key;
            const auto value = part->find(key);
            if (value == part->end() || !value->is_number()) continue;
            rows[index].figures[report] = {value->get<double>(), interval_of(*part, key), from_base[index]};
        }
    }
    std::erase_if(rows, [](const ComparedRow& row) {
        return row.label.empty() || std::none_of(row.figures.begin(), row.figures.end(),
                                                 [](const ComparedFigure& figure) { return figure.value.has_value(); });
    });
    return rows;
}

/// Names of the groups that any report has of a task, in name order.
std::set<std::string> groups_of(const std::string& task, std::span<const nlohmann::json> reports) {
    std::set<std::string> names;
    for (const nlohmann::json& report : reports) {
        const auto part = report["tasks"].find(task);
        if (part == report["tasks"].end()) continue;
        const auto groups = part->find("by_group");
        if (groups == part->end() || !groups->is_object()) continue;
        for (const auto& [name, figures] : groups->items())
            if (!name.empty()) names.insert(name);
    }
    return names;
}

/// Headings and figures as text, the same for a terminal and for Markdown.
std::vector<std::vector<std::string>> cells_of(const Comparison& comparison) {
    std::vector<std::vector<std::string>> rows{{""}};
    rows.front().insert(rows.front().end(), comparison.titles.begin(), comparison.titles.end());
    for (const ComparedRow& row : comparison.rows) {
        std::vector<std::string>& cells = rows.emplace_back();
        cells.push_back(fmt::format("{}{}{}: {}", row.task, row.group.empty() ? "" : ", ", row.group, row.label));
        for (const ComparedFigure& figure : row.figures)
            cells.push_back(!figure.value ? "–" : format_figure(*figure.value) + (figure.significant() ? "*" : ""));
    }
    return rows;
}

/// A line, or nothing.
std::string note_of_untested(const Comparison& comparison) {
    const std::vector<std::string> tasks = comparison.untested();
    if (tasks.empty()) return {};
    return fmt::format("not tested for noise: {} (too few items for an interval, or other data in the reports)\n",
                       fmt::join(tasks, ", "));
}

std::string escaped(std::string text, char character, const char* with) {
    for (std::size_t place = 0; (place = text.find(character, place)) != std::string::npos;) {
        text.replace(place, 1, with);
        place += std::char_traits<char>::length(with);
    }
    return text;
}

std::string csv_cell(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
    return "\"" + escaped(text, '"', "\"\"") + "\"";
}

std::string csv_number(double value) {
    return std::isnan(value) ? "" : fmt::format("{}", value);
}

nlohmann::ordered_json ends_of(const Interval& interval) {
    if (!interval.known()) return nullptr;
    return {interval.lower, interval.upper};
}

}  // namespace

bool Comparison::any_significant() const {
    return std::any_of(rows.begin(), rows.end(), [](const ComparedRow& row) {
        return std::any_of(row.figures.begin(), row.figures.end(),
                           [](const ComparedFigure& figure) { return figure.significant(); });
    });
}

std::vector<std::string> Comparison::untested() const {
    std::vector<std::string> tasks;
    std::set<std::string> tested;
    for (const ComparedRow& row : rows) {
        bool compared = false;
        for (std::size_t report = 1; report < row.figures.size(); ++report) {
            compared = compared || (row.figures.front().value && row.figures[report].value);
            if (row.figures[report].difference.known()) tested.insert(row.task);
        }
        if (compared && row.group.empty() && std::ranges::count(tasks, row.task) == 0) tasks.push_back(row.task);
    }
    std::erase_if(tasks, [&](const std::string& task) { return tested.contains(task); });
    return tasks;
}

Comparison compare_reports(std::span<const nlohmann::json> reports, std::vector<std::string> titles, bool by_group) {
    std::set<std::pair<std::string, std::string>> tasks;  // name and kind
    for (const nlohmann::json& report : reports)
        for (const auto& [task, part] : report["tasks"].items())
            tasks.emplace(task, part["kind"].get<std::string>());
    Comparison comparison{std::move(titles), {}};
    for (const auto& [task, kind] : tasks) {
        std::vector<std::string> groups{""};
        if (by_group) {
            const std::set<std::string> names = groups_of(task, reports);
            groups.insert(groups.end(), names.begin(), names.end());
        }
        for (const std::string& group : groups)
            for (ComparedRow& row : rows_of(task, find_metric(kind), group, reports))
                comparison.rows.push_back(std::move(row));
    }
    return comparison;
}

std::string as_table(const Comparison& comparison) {
    std::vector<std::vector<std::string>> rows = cells_of(comparison);
    const bool stars = comparison.any_significant();
    if (stars)  // figures stay aligned beside starred ones
        for (std::size_t row = 1; row < rows.size(); ++row)
            for (std::size_t column = 2; column < rows[row].size(); ++column)
                if (!rows[row][column].ends_with('*')) rows[row][column] += ' ';
    return format_table(rows) + note_of_untested(comparison) + (stars ? fmt::format("{}\n", footnote) : "");
}

std::string as_markdown(const Comparison& comparison) {
    std::string text;
    const auto rows = cells_of(comparison);
    for (std::size_t row = 0; row < rows.size(); ++row) {
        text += "|";
        for (const std::string& cell : rows[row])
            text += " " + escaped(escaped(printable(cell), '|', "\\|"), '*', "\\*") + " |";
        text += "\n";
        if (row > 0) continue;
        text += "| ---";
        for (std::size_t column = 1; column < rows[row].size(); ++column)
            text += " | ---:";
        text += " |\n";
    }
    if (const std::string note = note_of_untested(comparison); !note.empty()) text += "\n" + note;
    if (comparison.any_significant()) text += fmt::format("\n\\{}\n", footnote);
    return text;
}

std::string as_csv(const Comparison& comparison) {
    std::string text = "task,figure,report,value,lower,upper,difference_lower,difference_upper,significant,group\n";
    for (const ComparedRow& row : comparison.rows)
        for (std::size_t report = 0; report < row.figures.size(); ++report) {
            const ComparedFigure& figure = row.figures[report];
            if (!figure.value) continue;
            text += fmt::format("{},{},{},{},{},{},{},{},{},{}\n", csv_cell(row.task), row.key,
                                csv_cell(comparison.titles[report]), *figure.value, csv_number(figure.interval.lower),
                                csv_number(figure.interval.upper), csv_number(figure.difference.lower),
                                csv_number(figure.difference.upper),
                                !figure.difference.known() ? ""
                                : figure.significant()     ? "true"
                                                           : "false",
                                csv_cell(row.group));
        }
    return text;
}

std::string as_json(const Comparison& comparison) {
    nlohmann::ordered_json json{{"columns", comparison.titles}};
    json["rows"] = nlohmann::ordered_json::array();
    for (const ComparedRow& row : comparison.rows) {
        nlohmann::ordered_json& out = json["rows"].emplace_back();
        out = {{"task", row.task}};
        out["group"] = row.group.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(row.group);
        out.update({{"figure", row.key}, {"label", row.label}});
        for (const ComparedFigure& figure : row.figures) {
            out["values"].push_back(figure.value ? nlohmann::ordered_json(*figure.value) : nullptr);
            out["intervals"].push_back(ends_of(figure.interval));
            out["differences"].push_back(ends_of(figure.difference));
            out["significant"].push_back(figure.difference.known() ? nlohmann::ordered_json(figure.significant())
                                                                   : nullptr);
        }
    }
    return json_text(json, 2, NotUtf8::replaced) + "\n";
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
