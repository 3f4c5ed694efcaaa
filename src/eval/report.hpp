// REPORT.json: what eval writes and compare reads.
//
//   {"format": "fairgptq-report", "version": 1, "model": DIR, "run": RUN or null, "settings": {alpha, solver, bits, …}
//   of the run
//    or null, "tokens_file": FILE, "tasks": {NAME: {"kind", figures …, "by_group": {GROUP: {figures …}}, "data"}}}
// "data" names the sequences that were scored (a hash), so that figures of different data are not taken for comparable.
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

/// @throws InvalidInput naming the file and the field: not a report, another version, figures that are not numbers
nlohmann::json read_report(const std::filesystem::path& file);

/// Short headings for these reports: "original", "GPTQ 4-bit", "Fair-GPTQ α=0.1"; where two would be the same, with the
/// names of their runs.
std::vector<std::string> report_titles(std::span<const nlohmann::json> reports);

/// A row per task and figure, a column per report.
std::string comparison_table(std::span<const nlohmann::json> reports, const std::vector<std::string>& titles);

/// Names of tasks that several reports have, but measured on different sequences.
std::vector<std::string> tasks_of_different_data(std::span<const nlohmann::json> reports);

}  // namespace fairgptq
