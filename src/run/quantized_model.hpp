// A run's quantized modules in place of a model's own weights: what `logits --run` and `eval --run` compute with, and
// what a resumed run replays.
#pragma once

#include "backend/backend.hpp"
#include "model/weights.hpp"
#include "run/run_directory.hpp"

namespace fairgptq {

/// A run's codes mean nothing with other weights around them. Reads every weight once: a fine-tuned model has files of
/// the same names, sizes and headers.
/// @throws InvalidInput saying what has changed since the run was made: files, config.json or weights
void check_model_unchanged(const RunDirectory& run, const Checkpoint& checkpoint);

/// Replaces the linears that `record` holds; the others stay as they are.
/// @throws InvalidInput naming layer and module if the model has no such linear, or of another shape
void dequantize_layer(Backend& backend, const LayerRecord& record, LayerWeights& weights);

/// Replaces the linears of every layer that a finished run quantizes. `backend` must outlive what is returned.
/// @throws InvalidInput if the run is not finished; when called, as RunDirectory::layer and dequantize_layer say
LayerOverride quantized_layers(Backend& backend, const RunDirectory& run);

}  // namespace fairgptq
