// What --model DIR and --run RUN open: a model with its own weights, or with a run's in their place.
#pragma once

#include <cxxopts.hpp>
#include <filesystem>
#include <optional>

#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "model/weights.hpp"
#include "run/run_directory.hpp"

namespace fairgptq::commands {

void add_model_or_run(cxxopts::Options& options);

struct ModelOrRun {
    std::filesystem::path model_dir;
    std::optional<RunDirectory> run;
    TensorHashes recorded;  // what the run's layers were made of
    Family family;
    Checkpoint checkpoint;

    /// Puts the run's weights into each layer; empty without a run. `backend` and this must outlive it.
    WeightsOverride override_weights(Backend& backend) const;
};

/// A run, and where its model is: in `moved_model` unless that is empty. @throws InvalidInput if it is not there
RunDirectory open_run_with_model(const std::filesystem::path& path, const std::filesystem::path& moved_model);

/// @throws InvalidInput unless there is a model, or a finished run whose model is still there in the same files
ModelOrRun open_model_or_run(const cxxopts::ParseResult& parsed);

}  // namespace fairgptq::commands
