// Which rank solves which rows of a stack of modules. The unit is a tile of 64 rows of one module (fewer at its end),
// never changed by the number of ranks; each rank has a contiguous run of tiles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fairgptq {

class RowShares {
  public:
    static constexpr std::int64_t tile_rows = 64;

    /// Rows of one module at one rank.
    struct Segment {
        std::size_t module = 0;
        std::int64_t first_row = 0;  // in the module, a multiple of tile_rows
        std::int64_t rows = 0;
        std::int64_t offset = 0;      // of its first row among the rank's rows
        std::int64_t first_tile = 0;  // of its first tile among the rank's tiles
    };

    RowShares(std::span<const std::int64_t> module_rows, int ranks);

    /// Tiles of a module's, or a segment's, rows.
    static std::int64_t tiles_in(std::int64_t rows) { return (rows + tile_rows - 1) / tile_rows; }

    int ranks() const { return ranks_; }
    std::int64_t rows_of(int rank) const;
    std::int64_t tiles_of(int rank) const { return first_tile(rank + 1) - first_tile(rank); }
    std::vector<Segment> segments_of(int rank) const;

  private:
    struct Tile {
        std::size_t module;
        std::int64_t first_row, rows;
    };
    std::int64_t first_tile(int rank) const { return static_cast<std::int64_t>(tiles_.size()) * rank / ranks_; }

    std::vector<Tile> tiles_;
    int ranks_;
};

}  // namespace fairgptq
