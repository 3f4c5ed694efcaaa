// How the column loop goes through a matrix: blocks that a kernel works on, in panels whose errors are spread at once.
// What a step does is its caller's: the GPU's launches, or the tests' loops.
#pragma once

#include <algorithm>

#include "backend/cuda/column_block.hpp"

namespace fairgptq::cuda {

/// Whether a group's first column begins a run of a block, and the group ends with a block or lies in one: others would
/// begin inside a run, or reach beyond a block into columns that lack its updates.
inline bool groups_fit(std::int64_t size, std::int64_t cols) {
    constexpr std::int64_t block = BlockShape::columns;
    return size == cols ||
           (size > 0 && cols % size == 0 && size % BlockShape::run == 0 && (block % size == 0 || size % block == 0));
}

/// Columns of a panel: about 1024, and whole groups, as a group's scale is found from columns that are all up to date.
/// A group that is the whole row begins before the first update.
inline std::int64_t panel_columns(std::int64_t group_size, std::int64_t cols) {
    constexpr std::int64_t wanted = 1024;
    if (group_size >= cols || group_size <= BlockShape::columns) return std::min(wanted, cols);
    return std::min(ceil_div(wanted, group_size) * group_size, cols);
}

/// Columns begin … end.
struct Columns {
    std::int64_t begin = 0;
    std::int64_t end = 0;

    std::int64_t count() const { return end - begin; }
};

/// @param wide_group columns of a group wider than a block whose scales are found on the way; 0 if there are none
/// @param steps find_scales(Columns group), quantize(Columns block, std::int64_t panel_begin),
/// spread(Columns from, Columns to, std::int64_t panel_begin): to −= errors of from · R[from, to]
template <class Steps>
void walk_columns(std::int64_t cols, std::int64_t wide_group, Steps& steps) {
    const std::int64_t panel_cols = panel_columns(wide_group, cols);
    for (std::int64_t panel = 0; panel < cols; panel += panel_cols) {
        const std::int64_t panel_end = std::min(panel + panel_cols, cols);
        for (std::int64_t begin = panel; begin < panel_end; begin += BlockShape::columns) {
            const Columns block{begin, std::min<std::int64_t>(begin + BlockShape::columns, panel_end)};
            if (wide_group > 0 && begin % wide_group == 0) steps.find_scales(Columns{begin, begin + wide_group});
            steps.quantize(block, panel);
            if (block.end < panel_end) steps.spread(block, Columns{block.end, panel_end}, panel);
        }
        if (panel_end < cols) steps.spread(Columns{panel, panel_end}, Columns{panel_end, cols}, panel);
    }
}

}  // namespace fairgptq::cuda
