// Which modules a run quantizes, and to what grid each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/family.hpp"
#include "model/module_names.hpp"
#include "solver/settings.hpp"

namespace fairgptq {

/// What some modules have in place of the run's own.
struct GridChange {
    std::optional<int> bits = {};
    std::optional<std::int64_t> group_size = {};
    std::optional<bool> symmetric = {};
};

/// The options as given; checked against a model by ModuleGrids.
struct ModuleSettings {
    std::vector<std::string> ignore = {};  // --ignore: modules that stay as they are, before any map
    ModuleMap<GridChange> map = {};        // --module-map
};

/// Reads {"*.down_proj": {"bits": 8, "group_size": 32, "sym": false}}, in the file's order.
/// @throws InvalidInput naming the file, the entry and the field
ModuleMap<GridChange> read_module_settings(const std::filesystem::path& file);

/// Copies share what they hold.
class ModuleGrids {
  public:
    /// @throws InvalidInput naming the option and what in it fits no module
    ModuleGrids(const SolverSettings& solver, const ModuleSettings& settings, const Family& family);
    /// A linear's grid, with the group size as given; nothing where it stays as it is.
    /// @param module the name below the layer's prefix ("mlp.down_proj")
    std::optional<Grid> operator()(std::int64_t layer, const std::string& module) const;
    const Grid& common() const { return grid_; }  // of modules that nothing else is said of
    /// Whether all modules are quantized, to one grid.
    bool uniform() const { return changed_ == nullptr; }
    /// Patterns of the map that no module's grid comes from, as others or --ignore have all that they fit.
    const std::vector<std::string>& idle() const { return idle_; }

  private:
    using Changed = std::unordered_map<std::string, std::optional<Grid>>;
    Grid grid_;
    std::shared_ptr<const std::vector<Changed>> changed_;  // by layer and module; none: uniform
    std::vector<std::string> idle_;
};

/// Columns of the widest module of the first `layers` that is quantized; 0: none is.
/// @param routed only of experts' modules, without those of one that every token reaches
std::int64_t widest_quantized(const ModuleGrids& grids, const Family& family, std::int64_t layers, bool routed = false);

/// Adds what is not the default to a run's settings of quantization (run.json): runs made before go on.
void add_to_json(const ModuleSettings& settings, nlohmann::json& quantization);

/// Those of a run. @param run_settings RunDirectory::settings
ModuleGrids recorded_grids(const nlohmann::json& run_settings, const Family& family);

}  // namespace fairgptq
