// RUN/: settings and fingerprint (run.json), events (log.jsonl), finished layers (layers/).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "run/layer_file.hpp"

namespace fairgptq {

class RunDirectory {
  public:
    /// Makes the folder, run.json and layers/. Only rank 0 calls it.
    /// @param settings everything that changes results, in groups that a reader understands; also holds "model"
    /// (absolute path, config hash, files) and "calibration" (digest)
    /// @throws InvalidInput if the folder exists and is not empty, or cannot be written
    static RunDirectory create(const std::filesystem::path& path, const nlohmann::json& settings);
    /// @throws InvalidInput if it is not a run
    static RunDirectory open(const std::filesystem::path& path);
    /// For --resume: open, and compare what changes results. @throws InvalidInput naming the first field that differs,
    /// its value in the run and its value now
    static RunDirectory resume(const std::filesystem::path& path, const nlohmann::json& settings);

    const std::filesystem::path& path() const { return path_; }
    const nlohmann::json& settings() const { return settings_; }
    const std::string& fingerprint() const { return fingerprint_; }
    std::filesystem::path layer_path(std::int64_t layer) const;
    /// Number of layers 0 … n−1 that are there, whole and of this run. A damaged file ends the count (and is moved
    /// aside with a warning when `repair`).
    std::int64_t finished_layers(bool repair) const;
    LayerRecord layer(std::int64_t index) const;
    /// Appends one event to log.jsonl, with "time" (UTC, ISO 8601) added.
    void log(nlohmann::json event) const;

  private:
    std::filesystem::path path_;
    nlohmann::json settings_;
    std::string fingerprint_;
};

/// Hash (XXH3, 128 bits, hex) of the fields that change results.
std::string fingerprint_of(const nlohmann::json& settings);

}  // namespace fairgptq
