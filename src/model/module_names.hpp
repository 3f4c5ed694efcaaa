// Modules as users name them: in lists, and in maps of patterns.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/family.hpp"

namespace fairgptq {

/// "o_proj" of "self_attn.o_proj".
std::string last_name(const std::string& module);

/// A list like "o_proj,mlp.down_proj,model.layers.0.*": last names, names below the layer's prefix, full names and
/// patterns of those, as a shell has them.
class ModuleList {
  public:
    ModuleList() = default;  // of none
    /// @param option that it is the value of, for messages: "--ignore"
    /// @throws InvalidInput if it is empty, or one of its names fits no module of this model
    ModuleList(const std::string& list, const std::string& option, const Family& family);
    bool empty() const { return names_.empty(); }
    /// @param module below the layer's prefix: "mlp.down_proj"; @param full with it
    bool contains(const std::string& module, const std::string& full) const;

  private:
    std::vector<std::string> names_;
};

/// Values by patterns over full names ("model.layers.3.mlp.down_proj", "*.o_proj"); the first that fits counts.
template <class T>
using ModuleMap = std::vector<std::pair<std::string, T>>;

/// Whether a pattern, as a shell has them, fits a full name.
bool fits_name(const std::string& pattern, const std::string& full);

template <class T>
const T* find_module(const ModuleMap<T>& map, const std::string& full) {
    for (const auto& [pattern, value] : map)
        if (fits_name(pattern, full)) return &value;
    return nullptr;
}

/// The object in a map's file: patterns and values, in the file's order.
/// @param what its values are, for messages: "numbers"
/// @throws InvalidInput naming the option and the file
nlohmann::ordered_json read_module_map(const std::filesystem::path& file, const std::string& option,
                                       const std::string& what);

/// @throws InvalidInput naming the option if a pattern fits no module of this model
void check_pattern(const std::string& pattern, const std::string& option, const Family& family);

}  // namespace fairgptq
