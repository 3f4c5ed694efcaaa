// The sequences of a task, by item and role.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "calibration/tokens.hpp"

namespace fairgptq {

/// sequence[item][role]; every item has `roles` of them (the token file's reader sees to it).
inline std::vector<std::vector<std::int64_t>> sequences_by_item(const Task& task, std::size_t roles) {
    std::vector<std::vector<std::int64_t>> result(static_cast<std::size_t>(task.items),
                                                  std::vector<std::int64_t>(roles));
    for (std::int64_t sequence = 0; sequence < task.sequences.count(); ++sequence)
        result[task.item[sequence]].at(task.role[sequence]) = sequence;
    return result;
}

/// Items by the name that each has in `names`, in name order; no names: nothing.
inline std::map<std::string, std::vector<std::int64_t>> items_by_name(const std::vector<std::string>& names) {
    std::map<std::string, std::vector<std::int64_t>> result;
    for (std::size_t item = 0; item < names.size(); ++item)
        result[names[item]].push_back(static_cast<std::int64_t>(item));
    return result;
}

}  // namespace fairgptq
