// One finished layer on disk: layers/layer_0000.h5 (docs/files.md "Layer file").
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "solver/solve.hpp"
#include "support/checksum.hpp"

namespace fairgptq {

struct LayerRecord {
    std::int64_t layer = 0;
    std::string fingerprint;  // of the run (run/run_directory.hpp)
    std::vector<ModuleSolution> modules;
    /// The original model's tensors that were read for this layer: its own; in layer 0 also those outside all layers.
    TensorHashes source_tensors = {};
    /// `hash` of the layer before; empty: it is the first.
    std::string made_after = {};
    /// Of all that the next layer's inputs come from: layer_hash or source_hash. To be written: that, or empty.
    std::string hash = {};
};

/// Where quantized layers make the next one's inputs. XXH3-128 (hex) of `made_after`, of `source_tensors` (as JSON),
/// and of each module's name, codes (as a file holds them), scales (as float32), zeros and group_index.
std::string layer_hash(const LayerRecord& record);

/// Where the original model's layers do. XXH3-128 (hex) of `made_after` and `source_tensors` (as JSON).
std::string source_hash(const LayerRecord& record);

/// Written under a temporary name, flushed, sealed with a checksum, fsynced, renamed, folder fsynced: a file that
/// exists is whole.
/// @returns its `hash`: layer_hash where the record has none
/// @throws Failure naming file and reason (no space, no permission); no half-written file is left under the final name
std::string write_layer(const std::filesystem::path& file, const LayerRecord& record);

/// A layer file that matches its checksum, without its modules, which are not read.
/// @throws InvalidInput naming the file if it is damaged or not sealed
LayerRecord read_layer_header(const std::filesystem::path& file);

/// Modules come back in the order in which they were written.
/// @throws InvalidInput naming file and object if it is damaged, not sealed, its shapes disagree or a value is out of
/// range
LayerRecord read_layer_file(const std::filesystem::path& file);

}  // namespace fairgptq
