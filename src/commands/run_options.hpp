// The options that decide a run (beyond the solver's own): shared by quantize and plan.
#pragma once

#include <cxxopts.hpp>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "calibration/tokens.hpp"
#include "commands/exchange.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "pipeline/chunks.hpp"
#include "pipeline/quantize.hpp"

namespace fairgptq::commands {

void add_run_options(cxxopts::Options& options);

/// Everything a run reads, checked.
struct RunInputs {
    std::filesystem::path model_dir, token_path;
    Family family;
    Checkpoint checkpoint;
    std::string config_hash;
    std::string calibration_digest;
    std::int64_t file_tokens = 0;  // of all calibration sequences in the file
    Chunks chunks;
    QuantizeSettings settings;
    ModuleSettings modules;  // as given
    ModuleGrids grids;       // and what they are for this model
    CommChoice comm = CommChoice::automatic;
    std::optional<std::size_t> device_memory = {};  // bytes; --device-memory
    std::string unrelated_digest = {};              // where --pairs unrelated reads them
};

/// Whether a command reads the model's weights, or also does with its config.json.
enum class Weights : std::uint8_t { needed, if_there };

/// Reads options, model and tokens, and checks them against each other.
/// @throws InvalidInput for everything that would make the run fail or mean something else than was asked
RunInputs read_run_inputs(const cxxopts::ParseResult& parsed, Weights weights = Weights::needed);

/// Warns where vLLM would load no export of the run, and of settings without effect: before the work, while they can
/// still be others.
void warn_of_settings(const RunInputs& inputs);

/// What run.json holds: model, calibration and settings. Paths are there for readers; they are not part of the
/// fingerprint.
nlohmann::json run_settings(const RunInputs& inputs);

}  // namespace fairgptq::commands
