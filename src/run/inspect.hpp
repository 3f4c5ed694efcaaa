// A run's settings, progress and figures, for people (inspect_text) and for programs (inspect_json).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "run/run_directory.hpp"

namespace fairgptq {

/// {"run", "fingerprint", "settings", "layers", "finished_layers", "modules": [one object per module and finished
/// layer: "layer", "module", sizes, grid and the record's figures], "totals": {module: sums over layers}}.
/// @throws InvalidInput naming a layer file that is damaged
nlohmann::ordered_json inspect_json(const RunDirectory& run);

/// The same as text of at most 100 columns (longer settings aside).
/// @param report as inspect_json gives it
std::string inspect_text(const nlohmann::ordered_json& report);

/// A line for each run of a sweep: how far it is, and its figures summed over all modules.
/// @param reports of each, as inspect_json gives them
std::string inspect_sweep_text(const std::string& name, const nlohmann::ordered_json& reports);

}  // namespace fairgptq
