// REPORT.json: what eval writes and compare reads.
//
//   {"format": "fairgptq-report", "version": 1, "model": DIR, "run": RUN or null, "settings": {alpha, solver, bits, …}
//   of the run
//    or null, "tokens_file": FILE, "tasks": {NAME: {"kind", figures …, "intervals": {FIGURE: [lower, upper]},
//    "by_group": {GROUP: {figures …, "intervals"}}, "per_item": {…}, "data"}}}
// "data" names the sequences that were scored (a hash), so that figures of different data are not taken for comparable.
// "per_item" (item_table.hpp) is what the figures are made of; compare draws from it which differences are significant.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "calibration/tokens.hpp"
#include "eval/log_likelihoods.hpp"

namespace fairgptq {

/// What was evaluated.
struct Subject {
    std::string model;
    std::string run;                    // empty: the original model
    nlohmann::json settings = nullptr;  // the run's
};

/// Every task's figures.
nlohmann::ordered_json make_report(const Subject& subject, const std::filesystem::path& tokens_file,
                                   std::span<const Task> tasks, std::span<const LogLikelihoods> scores);

/// Names the data of a task: everything that its figures depend on, beside the model.
std::string hash_of_data(const Task& task);

/// @throws InvalidInput naming the file and the field: not a report, another version, figures that are not numbers
nlohmann::json read_report(const std::filesystem::path& file);

/// Short headings for these reports: "original", "GPTQ 4-bit", "Fair-GPTQ α=0.1"; where two would be the same, with as
/// much of the ends of their runs' (or models') paths as tells them apart, or of the reports' own.
/// @param files of the reports; may be empty
std::vector<std::string> report_titles(std::span<const nlohmann::json> reports,
                                       std::span<const std::filesystem::path> files = {});

}  // namespace fairgptq
