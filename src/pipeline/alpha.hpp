// α by module, by layer and by map: which modules get the bias term, and how much of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/family.hpp"
#include "model/module_names.hpp"
#include "run/module_grids.hpp"

namespace fairgptq {

/// The options as given; checked against a model by AlphaPolicy.
struct AlphaSettings {
    double alpha = 0.1;
    std::string modules = "all";  // or a ModuleList's: "o_proj,down_proj"
    std::string layers = "all";   // or "0-3,30", "lower:10%", "upper:10%", "lower+upper:10%"
    ModuleMap<double> map = {};   // before the above
};

/// Reads {"model.layers.3.mlp.down_proj": 0.2, "*.o_proj": 0.1}, in the file's order.
/// @throws InvalidInput naming the file and the entry
ModuleMap<double> read_alpha_map(const std::filesystem::path& file);

class AlphaPolicy {
  public:
    /// @throws InvalidInput naming the option and the word in it that fits no module or layer of this model
    AlphaPolicy(const AlphaSettings& settings, const Family& family);
    /// α of a linear: `module` is the name below the layer's prefix ("mlp.down_proj").
    double operator()(std::int64_t layer, const std::string& module) const;
    /// Whether any module that is quantized has an α other than 0.
    bool any(const ModuleGrids& grids) const;

  private:
    AlphaSettings settings_;
    Family family_;
    ModuleList modules_;  // empty: all
    std::vector<bool> layers_;
    ModulePatterns patterns_;  // of settings_.map
};

}  // namespace fairgptq
