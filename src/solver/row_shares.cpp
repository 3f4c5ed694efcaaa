#include "solver/row_shares.hpp"

#include <algorithm>

namespace fairgptq {

RowShares::RowShares(std::span<const std::int64_t> module_rows, int ranks) : ranks_(ranks) {
    for (std::size_t module = 0; module < module_rows.size(); ++module)
        for (std::int64_t row = 0; row < module_rows[module]; row += tile_rows)
            tiles_.push_back({module, row, std::min(tile_rows, module_rows[module] - row)});
}

std::int64_t RowShares::rows_of(int rank) const {
    std::int64_t rows = 0;
    for (std::int64_t tile = first_tile(rank); tile < first_tile(rank + 1); ++tile)
        rows += tiles_[tile].rows;
    return rows;
}

std::vector<RowShares::Segment> RowShares::segments_of(int rank) const {
    std::vector<Segment> segments;
    std::int64_t offset = 0;
    for (std::int64_t index = first_tile(rank); index < first_tile(rank + 1); ++index) {
        const Tile& tile = tiles_[index];
        if (segments.empty() || segments.back().module != tile.module)
            segments.push_back({tile.module, tile.first_row, 0, offset, index - first_tile(rank)});
        segments.back().rows += tile.rows;
        offset += tile.rows;
    }
    return segments;
}

}  // namespace fairgptq
