// What a task's figures are made of: a few numbers per item. Kept in the report, so that any choice of items (one
// group's, or a bootstrap's) can be computed anew from the report alone.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace fairgptq {

struct ItemTable {
    std::vector<std::vector<double>>
        columns;                        // [column][item], all of one length; what they are is the metric's to say
    std::vector<std::int32_t> cluster;  // [items], each in [0, clusters): items that are drawn together
    std::int64_t clusters = 0;
    std::vector<std::int32_t> group;  // [items], index into group_names; empty: no groups
    std::vector<std::string> group_names;

    std::int64_t items() const { return static_cast<std::int64_t>(cluster.size()); }
    /// The items of one group.
    ItemTable of_group(std::int32_t wanted) const;
};

/// Every item is drawn by itself.
void draw_items_alone(ItemTable& table, std::int64_t items);
/// Items of the same name are drawn together.
void draw_items_by_name(ItemTable& table, const std::vector<std::string>& names);
/// Empty names: no groups. Groups are in name order.
void set_groups(ItemTable& table, const std::vector<std::string>& names);

/// {"columns": {NAME: [items]}, "cluster": [items], "group": [items], "group_names": […]}; cluster and group are left
/// out where items are drawn alone and have no groups. Numbers keep seven digits, more than float32 scores have.
nlohmann::ordered_json to_json(const ItemTable& table, std::span<const char* const> columns);

/// @param where names file and task in messages
/// @throws InvalidInput if it is not what to_json makes: columns missing or of unequal length, indices out of range
ItemTable item_table_from_json(const nlohmann::json& json, std::span<const char* const> columns,
                               const std::string& where);

}  // namespace fairgptq
