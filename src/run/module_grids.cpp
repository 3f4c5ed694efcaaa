#include "run/module_grids.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "support/error.hpp"

namespace fairgptq {
namespace {

/// @param where the entry, for messages
GridChange read_change(const nlohmann::ordered_json& fields, const std::string& where) {
    if (!fields.is_object() || fields.empty())
        throw InvalidInput("{} must be an object of bits, group_size or sym", where);
    GridChange change;
    SolverSettings checked;
    for (const auto& [field, value] : fields.items()) {
        if (field == "bits" || field == "group_size") {
            constexpr double large = 1e6;  // beyond any that there is
            if (!value.is_number_integer() || std::abs(value.get<double>()) > large)
                throw InvalidInput("{}: '{}' is not a whole number that it can be", where, field);
            if (field == "bits")
                change.bits = value.get<int>();
            else
                change.group_size = value.get<std::int64_t>();
        } else if (field == "sym") {
            if (!value.is_boolean()) throw InvalidInput("{}: 'sym' is not true or false", where);
            change.symmetric = value.get<bool>();
        } else {
            throw InvalidInput("{} has '{}'; it takes bits, group_size and sym", where, field);
        }
    }
    checked.grid.bits = change.bits.value_or(4);
    checked.grid.group_size = change.group_size.value_or(-1);
    try {
        check(checked);
    } catch (const InvalidInput& error) {
        throw InvalidInput("{}: {}", where, error.what());
    }
    return change;
}

nlohmann::json to_json(const GridChange& change) {
    nlohmann::json fields = nlohmann::json::object();
    if (change.bits) fields["bits"] = *change.bits;
    if (change.group_size) fields["group_size"] = *change.group_size;
    if (change.symmetric) fields["sym"] = *change.symmetric;
    return fields;
}

}  // namespace

ModuleMap<GridChange> read_module_settings(const std::filesystem::path& file) {
    ModuleMap<GridChange> map;
    const auto json = read_module_map(file, "--module-map", "their settings");
    for (const auto& [pattern, fields] : json.items())
        map.emplace_back(
            pattern, read_change(fields, fmt::format("--module-map {}: the value of '{}'", file.string(), pattern)));
    return map;
}

ModuleGrids::ModuleGrids(const SolverSettings& solver, const ModuleSettings& settings, const Family& family)
    : grid_(solver.grid) {
    const ModulePatterns patterns = patterns_of(settings.map);
    patterns.check("--module-map", family);
    const ModuleList ignored = settings.ignore.empty() ? ModuleList() : ModuleList(settings.ignore, "--ignore", family);
    if (settings.map.empty() && ignored.empty()) return;
    std::vector<Changed> changed(static_cast<std::size_t>(family.config.layers));
    std::vector<bool> used(settings.map.size(), false);
    for_each_linear(family, family.config.layers, [&](std::int64_t layer, const StageSpec&, const LinearSpec& linear) {
        Changed& of_layer = changed[static_cast<std::size_t>(layer)];
        const std::string full = family.layer(layer) + linear.name;
        if (ignored.contains(linear.name, full)) {
            of_layer.emplace(linear.name, std::nullopt);
        } else if (const auto entry = patterns.first(full)) {
            const GridChange& change = settings.map[*entry].second;
            Grid grid = grid_;
            grid.bits = change.bits.value_or(grid.bits);
            grid.group_size = change.group_size.value_or(grid.group_size);
            grid.symmetric = change.symmetric.value_or(grid.symmetric);
            of_layer.emplace(linear.name, grid);
            used[*entry] = true;
        }
    });
    for (std::size_t i = 0; i < used.size(); ++i)
        if (!used[i]) idle_.push_back(settings.map[i].first);
    changed_ = std::make_shared<const std::vector<Changed>>(std::move(changed));
}

std::optional<Grid> ModuleGrids::operator()(std::int64_t layer, const std::string& module) const {
    if (uniform()) return grid_;
    const Changed& of_layer = (*changed_)[static_cast<std::size_t>(layer)];
    const auto found = of_layer.find(module);
    return found == of_layer.end() ? grid_ : found->second;
}

std::int64_t widest_quantized(const ModuleGrids& grids, const Family& family, std::int64_t layers, bool routed) {
    std::int64_t widest = 0;
    for_each_linear(family, layers, [&](std::int64_t layer, const StageSpec& stage, const LinearSpec& linear) {
        if (linear.cols > widest && (!routed || stage.is_routed()) && grids(layer, linear.name)) widest = linear.cols;
    });
    return widest;
}

void add_to_json(const ModuleSettings& settings, nlohmann::json& quantization) {
    if (!settings.ignore.empty()) quantization["ignore"] = settings.ignore;
    for (const auto& [pattern, change] : settings.map)
        quantization["module_map"].push_back({pattern, to_json(change)});
}

ModuleGrids recorded_grids(const nlohmann::json& run_settings, const Family& family) {
    SolverSettings solver;
    ModuleSettings settings;
    const auto quantization = run_settings.find("quantization");
    if (quantization != run_settings.end()) {
        solver.grid.bits = quantization->value("bits", solver.grid.bits);
        solver.grid.group_size = quantization->value("group_size", solver.grid.group_size);
        solver.grid.symmetric = quantization->value("symmetric", solver.grid.symmetric);
        settings.ignore = quantization->value("ignore", settings.ignore);
        for (const nlohmann::json& entry : quantization->value("module_map", nlohmann::json::array()))
            settings.map.emplace_back(entry.at(0).get<std::string>(), read_change(entry.at(1), "run.json"));
        solver.grid.scale_type = parse_scale_type(quantization->value("scale_dtype", "f16"));
    }
    return {solver, settings, family};
}

}  // namespace fairgptq
