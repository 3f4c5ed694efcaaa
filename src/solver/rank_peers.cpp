#include "solver/rank_peers.hpp"

#include <algorithm>
#include <vector>

namespace fairgptq {
namespace {

/// Some rows of parts, as many bytes as fit in one exchange, by rank.
struct Round {
    std::vector<std::vector<MatrixView<float>>> rows;  // of each rank, in order
    std::vector<std::size_t> bytes;                    // of each rank
};

std::size_t bytes_of(const MatrixView<float>& block) {
    return static_cast<std::size_t>(block.rows * block.cols) * sizeof(float);
}

/// @param quota bytes of a rank in one round, but never less than a row
std::vector<Round> cut(std::span<const Peers::Part> parts, int ranks, std::size_t quota) {
    std::vector<Round> rounds;
    std::vector<std::size_t> at(static_cast<std::size_t>(ranks));  // each rank's round so far
    for (const Peers::Part& part : parts) {
        const auto owner = static_cast<std::size_t>(part.owner);
        const std::size_t row = bytes_of(part.block.rows_from(0, 1));
        for (std::int64_t begin = 0; begin < part.block.rows && part.block.cols > 0;) {
            if (at[owner] == rounds.size())
                rounds.push_back({std::vector<std::vector<MatrixView<float>>>(static_cast<std::size_t>(ranks)),
                                  std::vector<std::size_t>(static_cast<std::size_t>(ranks))});
            Round& round = rounds[at[owner]];
            const std::size_t room = quota - std::min(quota, round.bytes[owner]);
            std::int64_t rows = std::min(part.block.rows - begin, static_cast<std::int64_t>(room / row));
            if (rows == 0 && round.bytes[owner] > 0) {
                ++at[owner];
                continue;
            }
            rows = std::max<std::int64_t>(rows, 1);
            round.rows[owner].push_back(part.block.rows_from(begin, rows));
            round.bytes[owner] += bytes_of(round.rows[owner].back());
            begin += rows;
        }
    }
    return rounds;
}

}  // namespace

std::size_t RankPeers::bytes(std::int64_t cols, std::int64_t ranks) {
    if (ranks == 1) return 0;
    // No operation shares more than a quarter of the matrix at once.
    const auto quarter = static_cast<std::size_t>(cols * cols) * sizeof(float) / 4;
    return std::min(staging_bytes, quarter) + std::min(staging_bytes / static_cast<std::size_t>(ranks), quarter);
}

void RankPeers::share(std::span<const Part> parts) {
    if (travels_) travels_(true);
    const auto ranks = static_cast<std::size_t>(size());
    const auto here = static_cast<std::size_t>(rank());
    for (const Round& round : cut(parts, size(), staging_ / ranks)) {
        const auto reserve = [&](Buffer& buffer, std::size_t bytes) {
            if (buffer.bytes() >= bytes) return;
            buffer = Buffer();
            buffer = backend_.allocate(bytes);
        };
        std::size_t total = 0;
        for (const std::size_t bytes : round.bytes)
            total += bytes;
        reserve(all_, total);
        reserve(mine_, round.bytes[here]);
        float* place = mine_.as<float>();
        for (const MatrixView<float>& rows : round.rows[here]) {
            backend_.copy(rows, MatrixView<float>(place, rows.rows, rows.cols));
            place += rows.rows * rows.cols;
        }
        Exchange exchange(collectives_);
        exchange.all_gather({mine_.as<std::byte>(), round.bytes[here]}, {all_.as<std::byte>(), total}, round.bytes);
        exchange.finish();
        place = all_.as<float>();
        for (std::size_t owner = 0; owner < ranks; ++owner)
            for (const MatrixView<float>& rows : round.rows[owner]) {
                if (owner != here) backend_.copy(MatrixView<float>(place, rows.rows, rows.cols), rows);
                place += rows.rows * rows.cols;
            }
    }
    if (travels_) travels_(false);
}

}  // namespace fairgptq
