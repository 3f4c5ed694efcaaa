// RUN/: settings and fingerprint (run.json), events (log.jsonl), finished layers (layers/).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "run/finished_layers.hpp"
#include "run/layer_file.hpp"

namespace fairgptq {

/// Settings are everything that changes results, in groups that a reader understands, and where the model and the
/// calibration came from. What this folder relies on:
///   model.path         absolute folder of the original model, for exports and replays
///   model.layers       decoder layers that the model has
///   layers             decoder layers that the run quantizes (fewer in a trial)
///   ….path, information.…   anywhere: not part of the fingerprint, so that a moved model or token file still resumes
class RunDirectory {
  public:
    /// @throws InvalidInput if the folder exists and holds anything but what a run that never began leaves
    static void require_empty(const std::filesystem::path& path);
    /// Makes the folder, run.json and layers/. Only rank 0 calls it.
    /// @throws InvalidInput if the folder exists and is not empty, or cannot be written
    static RunDirectory create(const std::filesystem::path& path, const nlohmann::json& settings);
    /// Whether there is a run to resume: a folder without run.json was made by a run that ended before it began.
    static bool begun(const std::filesystem::path& path);
    /// @throws InvalidInput if it is not a run, or run.json was changed by hand
    static RunDirectory open(const std::filesystem::path& path);
    /// For --resume: open, and compare what changes results. @throws InvalidInput naming the fields that differ, their
    /// values in the run and now
    static RunDirectory resume(const std::filesystem::path& path, const nlohmann::json& settings);

    const std::filesystem::path& path() const { return path_; }
    const nlohmann::json& settings() const { return settings_; }
    const std::string& fingerprint() const { return fingerprint_; }
    std::filesystem::path layer_path(std::int64_t layer) const { return layer_path(path_, layer); }
    static std::filesystem::path layer_path(const std::filesystem::path& run, std::int64_t layer);
    std::filesystem::path model_path() const;
    /// Where the model is now, if it has moved since the run was made. (The file is left as it is.)
    void set_model_path(const std::filesystem::path& folder);
    std::int64_t model_layers() const;
    std::int64_t layers() const;  // that the run quantizes: the first ones
    /// The layers that are there, whole (their checksums match) and of this run. A damaged file is none, with a
    /// warning; nor is one that was made after another layer than is there before it, nor any after that. One that
    /// cannot be opened is refused. With `repair` damaged files are moved aside, and what interrupted writes left is
    /// removed.
    /// @throws InvalidInput or Failure naming the file that cannot be opened
    /// @param source_tensors where not null, gets what those layers were made of (LayerRecord::source_tensors)
    FinishedLayers finished_layers(bool repair, TensorHashes* source_tensors = nullptr) const;
    /// Layers from `first` on have to be done again, as the one before came out differently: says so (rank 0 is heard),
    /// and removes them. @param done_now by this command, or by a later `quantize --resume`
    void warn_of_layers_from(std::int64_t first, bool done_now) const;
    void remove_layers_from(std::int64_t first) const;
    /// @returns what its layers were made of. @throws InvalidInput that says how far the run is, unless every layer is
    /// there
    TensorHashes require_finished() const;  // NOLINT(modernize-use-nodiscard): the check alone is of use
    /// @throws InvalidInput naming the file if the layer is missing, damaged or of another run
    LayerRecord layer(std::int64_t index) const;
    /// Appends one event to log.jsonl, with "time" (UTC, ISO 8601) added. @throws Failure naming file and reason
    void log(nlohmann::json event) const;

  private:
    RunDirectory(std::filesystem::path path, nlohmann::json settings);
    std::int64_t setting(const char* pointer) const;
    std::filesystem::path path_;
    nlohmann::json settings_;
    std::string fingerprint_;
};

/// Hash (XXH3, 128 bits, hex) of the fields that change results.
std::string fingerprint_of(const nlohmann::json& settings);

/// The fields (in name order) that change results and differ, as "solver.alpha was 0.1, is 0.5; …"; empty if none does.
std::string differences(const nlohmann::json& before, const nlohmann::json& now);

}  // namespace fairgptq
