// What quantize and sweep share: all but their options, and which runs they make.
#pragma once

#include <cxxopts.hpp>
#include <filesystem>
#include <functional>
#include <vector>

#include "comm/communicator.hpp"
#include "commands/run_options.hpp"

namespace fairgptq::commands {

/// A run that a command makes: below --out (or --out itself, where `folder` is empty), with an α of its own.
struct PlannedRun {
    std::filesystem::path folder;
    AlphaSettings alpha;
};

/// What a command that makes runs has of its own.
struct RunCommand {
    const char* name;
    const char* summary;
    const char* out;                                     // what --out is
    const char* resume;                                  // what --resume does
    std::function<void(cxxopts::Options&)> add_options;  // may be empty
    /// @throws InvalidInput
    std::function<std::vector<PlannedRun>(const cxxopts::ParseResult&, const RunInputs&)> runs;
};

/// Checks everything that a user can get wrong before any work, opens and locks the runs, does what is left of them in
/// one pass, logs it, and says at rank 0 how it went.
/// @returns the exit code
/// @throws SharedFailure, with the sentence of whatever makes the inputs or a run unusable
int make_runs(const RunCommand& command, int argc, char** argv, Communicator& comm);

}  // namespace fairgptq::commands
