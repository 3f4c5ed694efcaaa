#include "eval/item_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "support/error.hpp"
#include "support/json.hpp"

namespace fairgptq {
namespace {

/// Each name's place in name order.
std::map<std::string, std::int32_t> number(const std::vector<std::string>& names) {
    std::map<std::string, std::int32_t> numbers;
    for (const std::string& name : names)
        numbers[name] = 0;
    std::int32_t next = 0;
    for (auto& [name, index] : numbers)
        index = next++;
    return numbers;
}

std::vector<std::int32_t> indices_of(const std::vector<std::string>& names,
                                     const std::map<std::string, std::int32_t>& numbers) {
    std::vector<std::int32_t> indices;
    for (const std::string& name : names)
        indices.push_back(numbers.at(name));
    return indices;
}

nlohmann::ordered_json short_number(double value) {
    if (value == std::round(value) && std::abs(value) < 1e9) return static_cast<std::int64_t>(value);
    return std::strtod(fmt::format("{:.7g}", value).c_str(), nullptr);
}

/// Indices below `end`, one per item.
std::vector<std::int32_t> read_indices(const nlohmann::json& json, const char* name, std::int64_t items,
                                       std::int64_t end, const std::string& where) {
    std::vector<std::int32_t> result;
    if (!json.is_array() || static_cast<std::int64_t>(json.size()) != items)
        throw InvalidInput("{}: \"{}\" is not an array with a number for each of the {} items", where, name, items);
    for (const nlohmann::json& value : json) {
        if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::int64_t>() >= end)
            throw InvalidInput("{}: \"{}\" holds {}, which is not a whole number below {}", where, name,
                               json_text(value), end);
        result.push_back(value.get<std::int32_t>());
    }
    return result;
}

}  // namespace

ItemTable ItemTable::of_group(std::int32_t wanted) const {
    ItemTable part;
    part.columns.resize(columns.size());
    part.group_names = {group_names.at(static_cast<std::size_t>(wanted))};
    std::map<std::int32_t, std::int32_t> clusters_kept;
    for (std::size_t item = 0; item < cluster.size(); ++item) {
        if (group[item] != wanted) continue;
        for (std::size_t column = 0; column < columns.size(); ++column)
            part.columns[column].push_back(columns[column][item]);
        const auto kept = clusters_kept.emplace(cluster[item], static_cast<std::int32_t>(clusters_kept.size())).first;
        part.cluster.push_back(kept->second);
        part.group.push_back(0);
    }
    part.clusters = static_cast<std::int64_t>(clusters_kept.size());
    return part;
}

void draw_items_alone(ItemTable& table, std::int64_t items) {
    table.cluster.resize(static_cast<std::size_t>(items));
    std::iota(table.cluster.begin(), table.cluster.end(), 0);
    table.clusters = items;
}

void draw_items_by_name(ItemTable& table, const std::vector<std::string>& names) {
    const auto numbers = number(names);
    table.cluster = indices_of(names, numbers);
    table.clusters = static_cast<std::int64_t>(numbers.size());
}

void set_groups(ItemTable& table, const std::vector<std::string>& names) {
    const auto numbers = number(names);
    table.group = indices_of(names, numbers);
    for (const auto& [name, index] : numbers)
        table.group_names.push_back(name);
}

nlohmann::ordered_json to_json(const ItemTable& table, std::span<const char* const> columns) {
    nlohmann::ordered_json json;
    for (std::size_t column = 0; column < columns.size(); ++column) {
        nlohmann::ordered_json& values = json["columns"][columns[column]] = nlohmann::ordered_json::array();
        for (const double value : table.columns.at(column))
            values.push_back(short_number(value));
    }
    if (table.clusters < table.items()) json["cluster"] = table.cluster;
    if (!table.group.empty()) {
        json["group"] = table.group;
        json["group_names"] = table.group_names;
    }
    return json;
}

ItemTable item_table_from_json(const nlohmann::json& json, std::span<const char* const> columns,
                               const std::string& where) {
    ItemTable table;
    if (!json.is_object() || !json.contains("columns") || !json["columns"].is_object())
        throw InvalidInput("{}: \"per_item\" holds no object \"columns\"", where);
    for (const char* name : columns) {
        const auto found = json["columns"].find(name);
        if (found == json["columns"].end() || !found->is_array() || found->empty())
            throw InvalidInput(
                "{}: \"per_item\" has no array \"{}\": it is damaged, or an older fairgptq wrote it (run eval again)",
                where, name);
        std::vector<double>& values = table.columns.emplace_back();
        for (const nlohmann::json& value : *found) {
            if (!value.is_number())
                throw InvalidInput("{}: \"{}\" holds {}, not a number", where, name, json_text(value));
            values.push_back(value.get<double>());
        }
        if (values.size() != table.columns.front().size() ||
            values.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
            throw InvalidInput("{}: \"{}\" has {} items, the other columns have {}", where, name, values.size(),
                               table.columns.front().size());
    }
    const auto items = static_cast<std::int64_t>(table.columns.front().size());
    if (json.contains("cluster")) {
        table.cluster = read_indices(json["cluster"], "cluster", items, items, where);
        table.clusters = *std::max_element(table.cluster.begin(), table.cluster.end()) + 1;
    } else {
        draw_items_alone(table, items);
    }
    if (json.contains("group")) {
        const nlohmann::json names = json.value("group_names", nlohmann::json::array());
        if (!names.is_array()) throw InvalidInput("{}: \"group_names\" is not an array", where);
        for (const nlohmann::json& name : names) {
            if (!name.is_string())
                throw InvalidInput("{}: \"group_names\" holds {}, not a string", where, json_text(name));
            table.group_names.push_back(name.get<std::string>());
        }
        table.group = read_indices(json["group"], "group", items, static_cast<std::int64_t>(names.size()), where);
    }
    return table;
}

}  // namespace fairgptq
