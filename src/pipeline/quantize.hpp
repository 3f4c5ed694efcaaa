// The run: a decoder's layers, stage by stage, from hidden states to quantized weights on disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "backend/backend.hpp"
#include "calibration/pair_control.hpp"
#include "calibration/tokens.hpp"
#include "comm/communicator.hpp"
#include "comm/device_collectives.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "pipeline/alpha.hpp"
#include "pipeline/chunks.hpp"
#include "pipeline/progress.hpp"
#include "pipeline/residency.hpp"
#include "run/module_grids.hpp"
#include "run/run_directory.hpp"
#include "solver/settings.hpp"
#include "support/checksum.hpp"

namespace fairgptq {

enum class InputsFrom : std::uint8_t { sequential, original };

/// Everything that decides a run's result, beyond the model and the tokens.
struct QuantizeSettings {
    SolverSettings solver;
    AlphaSettings alpha;
    HessianSource hessian_from = HessianSource::both;
    PairAlignment alignment = PairAlignment::position;
    PairControl pairs = PairControl::as_given;
    InputsFrom inputs = InputsFrom::sequential;
    std::int64_t chunk_tokens = 8192;
    std::int64_t layers = 0;  // how many of the model's layers, from the first
};

enum class Outcome : std::uint8_t { done, stopped };

/// What one pass over the model makes: a run of its own, with an α of its own.
struct RunTarget {
    const RunDirectory* run;
    AlphaSettings alpha;
    FinishedLayers layers;             // that it has
    TensorHashes source_tensors = {};  // what those were made of (LayerRecord::source_tensors)
};

/// What one rank computes with.
struct RunResources {
    Backend& backend;
    Communicator& comm;
    DeviceCollectives& collectives;  // of comm's ranks, on the backend's memory
    Residency residency = {};
};

/// Quantizes the layers that a target lacks, up to settings.layers; before the last of them, a layer that every target
/// has is replayed from the run's files without solving. Several targets (a sweep over α) share everything but their
/// solves, which needs InputsFrom::original: with sequential inputs each target would have statistics of its own.
/// @param targets one or more; settings.alpha is not read
/// @param grids of its modules, made of settings.solver
/// @param stop_after_layers stop cleanly after that many more layers; < 0: never
/// @throws SharedFailure naming layer, tensor and file if weights cannot be used: they hold NaN, are not those that a
/// target's finished layers were made of, or not the same at all ranks. What was finished before is on disk
/// @returns `stopped` if a signal or stop_after_layers ended it early, with every finished layer on disk
Outcome quantize_model(const QuantizeSettings& settings, const ModuleGrids& grids, const Family& family,
                       const Checkpoint& checkpoint, const Chunks& chunks, std::span<const RunTarget> targets,
                       std::int64_t stop_after_layers, const RunResources& resources, Progress& progress);

}  // namespace fairgptq
