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
    std::string fingerprint;  // of the run (run/fingerprint.hpp)
    std::vector<ModuleSolution> modules;
    /// The original model's tensors that were read for this layer: its own; in layer 0 also those outside all layers.
    TensorHashes source_tensors = {};
    /// `hash` of the layer before, where its outputs were this layer's inputs; else empty.
    std::string made_after = {};
    /// layer_hash, of a record that was read.
    std::string hash = {};
};

/// What the layer has become, whatever it took to make it: XXH3-128 (hex) of `made_after` and each module's name,
/// codes (as a file holds them), scales (as float32), zeros and group_index. Its own `hash` is not read.
std::string layer_hash(const LayerRecord& record);

/// Written under a temporary name, flushed, sealed with a checksum, fsynced, renamed, folder fsynced: a file that
/// exists is whole.
/// @returns its layer_hash
/// @throws Failure naming file and reason (no space, no permission); no half-written file is left under the final name
std::string write_layer(const std::filesystem::path& file, const LayerRecord& record);

/// A layer file that matches its checksum, without its modules, which are not read.
/// @throws InvalidInput naming the file if it is damaged or not sealed
LayerRecord read_layer_header(const std::filesystem::path& file);

/// Modules come back in the order in which they were written.
/// @throws InvalidInput naming file and object if it is damaged, not sealed, its shapes disagree or a value is out of
/// range
LayerRecord read_layer_file(const std::filesystem::path& file);

/// Codes of `bits` bits, least significant first, each row padded to whole bytes; and back.
/// @param codes [rows, cols]
/// @param packed [rows, ⌈cols · bits / 8⌉]
void pack_codes(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols, int bits,
                std::span<std::uint8_t> packed);
void unpack_codes(std::span<const std::uint8_t> packed, std::int64_t rows, std::int64_t cols, int bits,
                  std::span<std::uint8_t> codes);

}  // namespace fairgptq
