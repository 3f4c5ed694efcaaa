#include "eval/comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "support/json.hpp"
#include "support/table.hpp"

namespace fairgptq {
namespace {

constexpr const char* footnote =
    "* differs from the first column: the 95 % bootstrap interval of the difference on the same items leaves out 0";

/// One report's part on one task, if it has one.
const nlohmann::json* part_of(const nlohmann::json& report, const std::string& task) {
    const auto found = report["tasks"].find(task);
    return found == report["tasks"].end() ? nullptr : &*found;
}

Interval interval_of(const nlohmann::json& part, const char* key) {
    const nlohmann::json intervals = part.value("intervals", nlohmann::json());
    if (!intervals.is_object()) return {};
    const nlohmann::json ends = intervals.value(key, nlohmann::json());
    if (!ends.is_array() || ends.size() != 2 || !ends[0].is_number() || !ends[1].is_number()) return {};
    return {ends[0].get<double>(), ends[1].get<double>()};
}

/// [figures], all unknown unless both parts have the same items of the same data.
std::vector<Interval> differences(const Metric& metric, const nlohmann::json& base, const nlohmann::json& other) {
    const std::vector<Interval> none(metric.figures.size());
    if (base["data"] != other["data"] || base["kind"] != other["kind"] || !base.contains("per_item") ||
        !other.contains("per_item"))
        return none;
    const ItemTable base_items = item_table_from_json(base["per_item"], metric.columns, "the first report");
    const ItemTable other_items = item_table_from_json(other["per_item"], metric.columns, "a report");
    if (base_items.cluster != other_items.cluster) return none;
    return bootstrap_difference(metric, base_items, other_items);
}

std::vector<ComparedRow> rows_of(const std::string& task, const Metric& metric,
                                 std::span<const nlohmann::json> reports) {
    std::vector<ComparedRow> rows;
    for (const Figure& figure : metric.figures)
        rows.push_back({task, figure.key, figure.label == nullptr ? "" : figure.label,
                        std::vector<ComparedFigure>(reports.size())});
    const nlohmann::json* base = part_of(reports.front(), task);
    for (std::size_t report = 0; report < reports.size(); ++report) {
        const nlohmann::json* part = part_of(reports[report], task);
        if (part == nullptr || (*part)["kind"] != metric.kind) continue;
        std::vector<Interval> from_base(metric.figures.size());
        if (report > 0 && base != nullptr) from_base = differences(metric, *base, *part);
        for (std::size_t index = 0; index < rows.size(); ++index) {
            const char* key = metric.figures[index].key;
            if (!part->contains(key)) continue;
            rows[index].figures[report] = {(*part)[key].get<double>(), interval_of(*part, key), from_base[index]};
        }
    }
    std::erase_if(rows, [](const ComparedRow& row) {
        return row.label.empty() || std::none_of(row.figures.begin(), row.figures.end(),
                                                 [](const ComparedFigure& figure) { return figure.value.has_value(); });
    });
    return rows;
}

/// Headings and figures as text, the same for a terminal and for Markdown.
std::vector<std::vector<std::string>> cells_of(const Comparison& comparison) {
    std::vector<std::vector<std::string>> rows{{""}};
    rows.front().insert(rows.front().end(), comparison.titles.begin(), comparison.titles.end());
    for (const ComparedRow& row : comparison.rows) {
        std::vector<std::string>& cells = rows.emplace_back();
        cells.push_back(fmt::format("{}: {}", row.task, row.label));
        for (const ComparedFigure& figure : row.figures)
            cells.push_back(!figure.value ? "–" : format_figure(*figure.value) + (figure.significant() ? "*" : ""));
    }
    return rows;
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

Comparison compare_reports(std::span<const nlohmann::json> reports, std::vector<std::string> titles) {
    std::set<std::pair<std::string, std::string>> tasks;  // name and kind
    for (const nlohmann::json& report : reports)
        for (const auto& [task, part] : report["tasks"].items())
            tasks.emplace(task, part["kind"].get<std::string>());
    Comparison comparison{std::move(titles), {}};
    for (const auto& [task, kind] : tasks)
        for (ComparedRow& row : rows_of(task, find_metric(kind), reports))
            comparison.rows.push_back(std::move(row));
    return comparison;
}

std::string as_table(const Comparison& comparison) {
    std::vector<std::vector<std::string>> rows = cells_of(comparison);
    const bool stars = comparison.any_significant();
    if (stars)  // figures stay aligned beside starred ones
        for (std::size_t row = 1; row < rows.size(); ++row)
            for (std::size_t column = 2; column < rows[row].size(); ++column)
                if (!rows[row][column].ends_with('*')) rows[row][column] += ' ';
    return format_table(rows) + (stars ? fmt::format("{}\n", footnote) : "");
}

std::string as_markdown(const Comparison& comparison) {
    std::string text;
    const auto rows = cells_of(comparison);
    for (std::size_t row = 0; row < rows.size(); ++row) {
        text += "|";
        for (const std::string& cell : rows[row])
            text += " " + escaped(escaped(escaped(cell, '|', "\\|"), '*', "\\*"), '\n', " ") + " |";
        text += "\n";
        if (row > 0) continue;
        text += "| ---";
        for (std::size_t column = 1; column < rows[row].size(); ++column)
            text += " | ---:";
        text += " |\n";
    }
    if (comparison.any_significant()) text += fmt::format("\n\\{}\n", footnote);
    return text;
}

std::string as_csv(const Comparison& comparison) {
    std::string text = "task,figure,report,value,lower,upper,difference_lower,difference_upper,significant\n";
    for (const ComparedRow& row : comparison.rows)
        for (std::size_t report = 0; report < row.figures.size(); ++report) {
            const ComparedFigure& figure = row.figures[report];
            if (!figure.value) continue;
            text += fmt::format("{},{},{},{},{},{},{},{},{}\n", csv_cell(row.task), row.key,
                                csv_cell(comparison.titles[report]), *figure.value, csv_number(figure.interval.lower),
                                csv_number(figure.interval.upper), csv_number(figure.difference.lower),
                                csv_number(figure.difference.upper),
                                !figure.difference.known() ? ""
                                : figure.significant()     ? "true"
                                                           : "false");
        }
    return text;
}

std::string as_json(const Comparison& comparison) {
    nlohmann::ordered_json json{{"columns", comparison.titles}};
    json["rows"] = nlohmann::ordered_json::array();
    for (const ComparedRow& row : comparison.rows) {
        nlohmann::ordered_json& out = json["rows"].emplace_back();
        out = {{"task", row.task}, {"figure", row.key}, {"label", row.label}};
        for (const ComparedFigure& figure : row.figures) {
            out["values"].push_back(figure.value ? nlohmann::ordered_json(*figure.value) : nullptr);
            out["intervals"].push_back(ends_of(figure.interval));
            out["differences"].push_back(ends_of(figure.difference));
            out["significant"].push_back(figure.difference.known() ? nlohmann::ordered_json(figure.significant())
                                                                   : nullptr);
        }
    }
    return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
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
