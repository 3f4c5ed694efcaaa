#include "model/module_names.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

bool fits_name(const std::string& pattern, const std::string& full) {
    return ::fnmatch(pattern.c_str(), full.c_str(), 0) == 0;
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

std::string a_full_name(const Family& family) {
    const std::int64_t layer = family.kinds_of_layers().back();
    return family.layer(layer) + family.stages_of(layer).back().linears.back().name;
}

}  // namespace

std::string last_name(const std::string& module) {
    return module.substr(module.rfind('.') + 1);
}

ModulePatterns::ModulePatterns(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {
    for (std::size_t i = 0; i < patterns_.size(); ++i) {
        if (patterns_[i].find_first_of("*?[\\") == std::string::npos)
            exact_.emplace(patterns_[i], i);
        else
            others_.push_back(i);
    }
}

std::optional<std::size_t> ModulePatterns::first(const std::string& full) const {
    const auto exact = exact_.find(full);
    const std::size_t end = exact == exact_.end() ? patterns_.size() : exact->second;
    for (const std::size_t i : others_) {
        if (i > end) break;
        if (fits_name(patterns_[i], full)) return i;
    }
    return exact == exact_.end() ? std::nullopt : std::optional(end);
}

void ModulePatterns::check(const std::string& option, const Family& family) const {
    std::vector<bool> fits(patterns_.size(), false);
    for_each_linear(family, family.config.layers, [&](std::int64_t layer, const StageSpec&, const LinearSpec& linear) {
        const std::string full = family.layer(layer) + linear.name;
        if (const auto exact = exact_.find(full); exact != exact_.end()) fits[exact->second] = true;
        for (const std::size_t i : others_)
            fits[i] = fits[i] || fits_name(patterns_[i], full);
    });
    const auto idle = std::ranges::find(fits, false);
    if (idle != fits.end())
        throw InvalidInput("{}: the pattern '{}' fits no module; names read like {}", option,
                           patterns_[static_cast<std::size_t>(idle - fits.begin())], a_full_name(family));
}

ModuleList::ModuleList(std::vector<std::string> names, const std::string& option, const Family& family)
    : names_(std::move(names)) {
    if (names_.empty()) throw InvalidInput("{} names no module", option);
    std::vector<bool> fits(names_.size(), false);
    for_each_linear(family, family.config.layers, [&](std::int64_t layer, const StageSpec&, const LinearSpec& linear) {
        const std::string full = family.layer(layer) + linear.name;
        for (std::size_t i = 0; i < names_.size(); ++i)
            fits[i] = fits[i] || is_named(names_[i], linear.name, full);
    });
    const auto idle = std::ranges::find(fits, false);
    if (idle != fits.end())
        throw InvalidInput("{}: this model has no module '{}' to quantize; it has {}, with full names like {}", option,
                           names_[static_cast<std::size_t>(idle - fits.begin())], last_names(family),
                           a_full_name(family));
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
    const std::string text(std::istreambuf_iterator<char>(stream), {});
    auto json = parse_ordered_json(text);
    if (!json.is_object() || json.empty())
        throw InvalidInput("{} {} must hold a JSON object of module patterns and {}", option, file.string(), what);
    (void)parse_json_object(text, fmt::format("{} {}", option, file.string()));  // has no key twice
    return json;
}

}  // namespace fairgptq
