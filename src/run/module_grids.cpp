#include "run/module_grids.hpp"

#include <nlohmann/json.hpp>

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
        const auto read = [&]<class T>(std::optional<T>& into, bool fits, const char* kind) {
            if (!fits) throw InvalidInput("{}: '{}' is not {}", where, field, kind);
            into = value.template get<T>();
        };
        if (field == "bits")
            read(change.bits, value.is_number_integer(), "a whole number");
        else if (field == "group_size")
            read(change.group_size, value.is_number_integer(), "a whole number");
        else if (field == "sym")
            read(change.symmetric, value.is_boolean(), "true or false");
        else
            throw InvalidInput("{} has '{}'; it takes bits, group_size and sym", where, field);
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
    : grid_(solver.grid), map_(settings.map), family_(family) {
    if (!settings.ignore.empty()) ignored_ = ModuleList(settings.ignore, "--ignore", family);
    for (const auto& entry : map_)
        check_pattern(entry.first, "--module-map", family);
    if (ignored_.empty()) return;
    for (std::int64_t layer = 0; layer < family.config.layers; ++layer)
        for (const StageSpec& stage : family.stages_of(layer))
            for (const LinearSpec& linear : stage.linears)
                if ((*this)(layer, linear.name)) return;
    throw InvalidInput("--ignore {} leaves no module to quantize", settings.ignore);
}

std::optional<Grid> ModuleGrids::operator()(std::int64_t layer, const std::string& module) const {
    if (uniform()) return grid_;
    const std::string full = family_.layer(layer) + module;
    if (ignored_.contains(module, full)) return std::nullopt;
    Grid grid = grid_;
    if (const GridChange* change = find_module(map_, full)) {
        grid.bits = change->bits.value_or(grid.bits);
        grid.group_size = change->group_size.value_or(grid.group_size);
        grid.symmetric = change->symmetric.value_or(grid.symmetric);
    }
    return grid;
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
        settings.ignore = quantization->value("ignore", "");
        for (const nlohmann::json& entry : quantization->value("module_map", nlohmann::json::array()))
            settings.map.emplace_back(entry.at(0).get<std::string>(), read_change(entry.at(1), "run.json"));
        solver.grid.scale_type = parse_scale_type(quantization->value("scale_dtype", "f16"));
    }
    return {solver, settings, family};
}

}  // namespace fairgptq
