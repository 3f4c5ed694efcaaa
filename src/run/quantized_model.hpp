// A run's quantized modules in place of a model's own weights: what `logits --run` and `eval --run` compute with, and
// what a resumed run replays.
#pragma once

#include <cstdint>

#include "backend/backend.hpp"
#include "model/weights.hpp"
#include "run/module_grids.hpp"
#include "run/run_directory.hpp"

namespace fairgptq {

// A run's codes mean nothing with other weights around them, and a fine-tuned model has files of the same names, sizes
// and headers. So the files are compared at once, which reads no weight, and each tensor when it is read: those that a
// run's codes replace are not.

/// @throws InvalidInput saying what has changed since the run was made: names, sizes or headers of files, or
/// config.json
void check_model_unchanged(const RunDirectory& run, const Checkpoint& checkpoint);

/// @param recorded what finished layers of `run` were made of; a tensor that it does not name is not compared
/// @param layer whose tensors `read` holds; −1: those outside all layers
/// @throws InvalidInput naming layer, tensor, file, and what to do about a tensor that has changed
void require_same_tensors(const TensorHashes& read, const TensorHashes& recorded, std::int64_t layer,
                          const Checkpoint& checkpoint, const RunDirectory& run);

/// Replaces the linears that `record` holds; the others stay as they are.
/// @throws InvalidInput naming layer and module if the model has no such linear, or of another shape
void dequantize_layer(Backend& backend, const LayerRecord& record, LayerWeights& weights);

/// Leaves a model's weights as they are, and compares those that a finished run was made of. Layers that a trial
/// (--max-layers) did not come to have nothing to be compared with. `checkpoint` must outlive what is returned.
/// @param recorded what the run's layers were made of (RunDirectory::require_finished)
/// @throws InvalidInput when called, as require_same_tensors says
WeightsOverride original_layers(const RunDirectory& run, const Checkpoint& checkpoint, TensorHashes recorded);

/// The same, with linears of the layers that the run quantizes replaced; the model's own weights of those are not read.
/// `backend` and `checkpoint` must outlive what is returned.
/// @param grids of the run (recorded_grids); @param which of them; empty: all
/// @throws InvalidInput when called, as above, and as RunDirectory::layer and dequantize_layer say; if the run lacks
/// one
WeightsOverride quantized_layers(Backend& backend, const RunDirectory& run, const ModuleGrids& grids,
                                 const Family& family, const Checkpoint& checkpoint, TensorHashes recorded,
                                 LinearChoice which = {});

}  // namespace fairgptq
