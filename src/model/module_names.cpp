#include "model/module_names.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

/// Whether some module of the model is one that `fits` takes: its name below the layer's prefix, and its full name.
bool any_module(const Family& family, const std::function<bool(const std::string&, const std::string&)>& fits) {
    for (std::int64_t layer = 0; layer < family.config.layers; ++layer)
        for (const StageSpec& stage : family.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                if (fits(linear.name, family.layer(layer) + linear.name)) return true;
    return false;
}

bool is_named(const std::string& name, const std::string& module, const std::string& full) {
    return name == module || name == last_name(module) || fits_name(name, full);
}

/// "q_proj, k_proj, …" of all kinds of layers.
std::string last_names(const Family& family) {
    std::vector<std::string> names;
    for (const std::int64_t layer : family.kinds_of_layers())
        for (const StageSpec& stage : family.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                if (std::ranges::find(names, last_name(linear.name)) == names.end())
                    names.push_back(last_name(linear.name));
    return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::string last_name(const std::string& module) {
    return module.substr(module.rfind('.') + 1);
}

bool fits_name(const std::string& pattern, const std::string& full) {
    return ::fnmatch(pattern.c_str(), full.c_str(), 0) == 0;
}

ModuleList::ModuleList(const std::string& list, const std::string& option, const Family& family) {
    std::istringstream stream(list);
    for (std::string name; std::getline(stream, name, ',');)
        names_.push_back(name);
    if (names_.empty()) throw InvalidInput("{} names no module", option);
    for (const std::string& name : names_) {
        const auto fits = [&](const std::string& module, const std::string& full) {
            return is_named(name, module, full);
        };
        if (!any_module(family, fits))
            throw InvalidInput("{}: this model has no module '{}' to quantize; it has {}", option, name,
                               last_names(family));
    }
}

bool ModuleList::contains(const std::string& module, const std::string& full) const {
    return std::ranges::any_of(names_, [&](const std::string& name) { return is_named(name, module, full); });
}

nlohmann::ordered_json read_module_map(const std::filesystem::path& file, const std::string& option,
                                       const std::string& what) {
    std::error_code ignored;
    if (std::filesystem::exists(file, ignored) && !std::filesystem::is_regular_file(file, ignored))
        throw InvalidInput("{} {} is not a file", option, file.string());
    std::ifstream stream(file);
    if (!stream) throw InvalidInput("{} {} cannot be opened", option, file.string());
    auto json = parse_ordered_json(std::string(std::istreambuf_iterator<char>(stream), {}));
    if (!json.is_object() || json.empty())
        throw InvalidInput("{} {} must hold a JSON object of module patterns and {}", option, file.string(), what);
    return json;
}

void check_pattern(const std::string& pattern, const std::string& option, const Family& family) {
    const auto fits = [&](const std::string&, const std::string& full) { return fits_name(pattern, full); };
    if (any_module(family, fits)) return;
    const std::int64_t layer = family.kinds_of_layers().back();
    throw InvalidInput("{}: the pattern '{}' fits no module; names read like {}{}", option, pattern,
                       family.layer(layer), family.stages_of(layer).back().linears.back().name);
}

}  // namespace fairgptq
