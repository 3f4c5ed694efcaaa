// --device-memory, and what a plan for it says.
#pragma once

#include <cxxopts.hpp>
#include <optional>
#include <string>
#include <vector>

#include "commands/run_options.hpp"
#include "pipeline/memory_plan.hpp"

namespace fairgptq::commands {

/// In bytes. @throws InvalidInput for what is no number of GiB above 0
std::optional<std::size_t> read_device_memory(const cxxopts::ParseResult& parsed);

/// A line for each thing that waits in host memory because the device's does not hold it.
std::vector<std::string> what_waits(const MemoryPlan& plan);

/// What this rank keeps on its device: as `plan` says for --device-memory, or for its share of what the device has
/// free. A collective. @throws SharedFailure, with a sentence that says how much is missing, if the run does not fit
/// @param runs made in one pass
MemoryPlan plan_run(const RunInputs& inputs, const Backend& backend, Communicator& comm, bool nccl, std::size_t runs);

}  // namespace fairgptq::commands
