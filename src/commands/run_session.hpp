// What quantize and sweep share: run directories opened and locked, and a pass that finishes them.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "commands/options.hpp"
#include "commands/run_options.hpp"
#include "pipeline/memory_plan.hpp"
#include "pipeline/quantize.hpp"
#include "run/run_directory.hpp"
#include "run/run_lock.hpp"
#include "support/phase_clock.hpp"

namespace fairgptq::commands {

/// What --resume finds: an existing run, or a new one. Rank 0 holds its lock.
struct OpenedRun {
    std::unique_ptr<RunLock> lock;
    RunDirectory run;
    std::int64_t finished;
    TensorHashes source_tensors;  // of the finished layers
};

/// A collective. @throws SharedFailure, with the sentence of whatever makes the run unusable
OpenedRun open_run(const std::filesystem::path& out, bool resume, const nlohmann::json& settings, Communicator& comm);

/// Does what is left of the runs in one pass, logs it, and says at rank 0 how it went.
/// @param alphas of each run
/// @param memory this rank's plan, for the log
/// @returns the exit code
int finish_runs(const RunInputs& inputs, std::span<const OpenedRun> opened, std::span<const AlphaSettings> alphas,
                std::int64_t stop_after_layers, int threads, const RunResources& resources, const MemoryPlan& memory,
                PhaseClock& clock);

/// --stop-after-layers; −1 where it is not given. @throws InvalidInput
std::int64_t read_stop_after(const cxxopts::ParseResult& parsed);

}  // namespace fairgptq::commands
