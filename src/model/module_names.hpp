// Modules as users name them: in lists, and by patterns.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/family.hpp"

namespace fairgptq {

/// "o_proj" of "self_attn.o_proj".
std::string last_name(const std::string& module);

/// Patterns, as a shell has them, over full names ("model.layers.3.mlp.down_proj", "*.o_proj"), in an order.
class ModulePatterns {
  public:
    ModulePatterns() = default;
    explicit ModulePatterns(std::vector<std::string> patterns);
    /// The number of the first that fits.
    std::optional<std::size_t> first(const std::string& full) const;
    /// @throws InvalidInput naming the option and the first pattern that fits no module of this model
    void check(const std::string& option, const Family& family) const;

  private:
    std::vector<std::string> patterns_;
    std::unordered_map<std::string, std::size_t> exact_;  // those that are names
    std::vector<std::size_t> others_;
};

/// Names like "o_proj", "mlp.down_proj", "model.layers.0.*": last names, names below the layer's prefix, full names and
/// patterns of those.
class ModuleList {
  public:
    ModuleList() = default;  // of none
    /// @param option that they are the value of, for messages: "--ignore"
    /// @throws InvalidInput if there is none, or one fits no module of this model
    ModuleList(std::vector<std::string> names, const std::string& option, const Family& family);
    bool empty() const { return names_.empty(); }
    /// @param module below the layer's prefix: "mlp.down_proj"; @param full with it
    bool contains(const std::string& module, const std::string& full) const;

  private:
    std::vector<std::string> names_;
};

/// Values by pattern; the first that fits counts.
template <class T>
using ModuleMap = std::vector<std::pair<std::string, T>>;

template <class T>
ModulePatterns patterns_of(const ModuleMap<T>& map) {
    std::vector<std::string> patterns;
    for (const auto& entry : map)
        patterns.push_back(entry.first);
    return ModulePatterns(std::move(patterns));
}

/// The object in a map's file: patterns and values, in the file's order.
/// @param what its values are, for messages: "numbers"
/// @throws InvalidInput naming the option and the file
nlohmann::ordered_json read_module_map(const std::filesystem::path& file, const std::string& option,
                                       const std::string& what);

}  // namespace fairgptq
