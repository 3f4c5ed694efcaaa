// One finished layer on disk: layers/layer_0000.h5 (interface.md "Run directory").
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "solver/solve.hpp"

namespace fairgptq {

struct LayerRecord {
    std::int64_t layer = 0;
    std::string fingerprint;  // of the run (run/fingerprint.hpp)
    std::vector<ModuleSolution> modules;
};

/// Written under a temporary name, flushed, sealed with a checksum, fsynced, renamed, folder fsynced: a file that
/// exists is whole.
/// @throws Failure naming file and reason (no space, no permission); no half-written file is left under the final name
void write_layer(const std::filesystem::path& file, const LayerRecord& record);

/// @throws InvalidInput naming file and object if it is damaged or its shapes disagree
LayerRecord read_layer_file(const std::filesystem::path& file);

/// Codes of `bits` bits, least significant first, each row padded to whole bytes; and back.
std::vector<std::uint8_t> pack_codes(const std::vector<std::uint8_t>& codes, std::int64_t rows, std::int64_t cols,
                                     int bits);
std::vector<std::uint8_t> unpack_codes(const std::vector<std::uint8_t>& packed, std::int64_t rows, std::int64_t cols,
                                       int bits);

}  // namespace fairgptq
