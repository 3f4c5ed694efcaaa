// Reports side by side: every figure of every task, and which differences from the first report are more than noise.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/bootstrap.hpp"

namespace fairgptq {

/// One figure of one report.
struct ComparedFigure {
    std::optional<double> value;  // none: the report does not have it
    Interval interval;
    /// Of this report less the first one over the same drawn items; none where either has no items, or their data
    /// differ.
    Interval difference;
    bool significant() const { return difference.excludes_zero(); }
};

struct ComparedRow {
    std::string task, key, label;
    std::vector<ComparedFigure> figures;  // [reports]
    std::string group = {};               // of the task's items, empty: all of them
};

struct Comparison {
    std::vector<std::string> titles;  // [reports]
    std::vector<ComparedRow> rows;    // tasks in name order, figures in their metric's order; then the task's groups
    bool any_significant() const;
    /// Tasks of which no difference could be tested, in their order: where an interval wants more items, or the reports
    /// have other data.
    std::vector<std::string> untested() const;
};

/// @param reports  as read_report lets pass
/// @param by_group also the figures of each group of a task's items
Comparison compare_reports(std::span<const nlohmann::json> reports, std::vector<std::string> titles,
                           bool by_group = false);

/// Aligned columns; a star marks a significant difference from the first column. Lines at the end say so, and what
/// could not be tested.
std::string as_table(const Comparison& comparison);
/// The same as a Markdown table.
std::string as_markdown(const Comparison& comparison);
/// A line per task, figure and report: value, interval, difference's interval, significant, group (RFC 4180).
std::string as_csv(const Comparison& comparison);
/// {"columns": [titles], "rows": [{"task", "group", "figure", "label", "values": […], "intervals": […],
/// "differences": […], "significant": […]}]}; null where there is none.
std::string as_json(const Comparison& comparison);

/// Names of tasks that several reports have, but measured on different sequences.
std::vector<std::string> tasks_of_different_data(std::span<const nlohmann::json> reports);

}  // namespace fairgptq
