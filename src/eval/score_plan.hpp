// Which chunks a task's sequences are computed in. Two things are never computed twice or in vain: the beginning that
// an item's sequences share, and a sequence's last token, after which nothing is scored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "calibration/tokens.hpp"
#include "model/chunks.hpp"

namespace fairgptq {

/// The places in a chunk whose next token is scored; no two are the same in both.
struct ScoredRows {
    std::vector<std::int32_t> rows;     // tokens of the chunk
    std::vector<std::int32_t> targets;  // [rows]: a token that may follow each
};

/// One chunk, and the sequences first … first + sequences − 1 of a task that it scores.
struct ScoreChunk {
    std::size_t task = 0;
    std::int64_t first = 0;
    std::int64_t sequences = 0;
    ChunkTokens tokens;
    ScoredRows rows;
    std::vector<std::int32_t> places;  // of the sequences' scored tokens, in their order, among `rows`
};

/// Each task in chunks of its own, of at most `chunk_tokens` tokens unless one sequence alone is longer; sequences in
/// the file's order. The plan depends on the tasks alone, never on ranks.
/// @param share_prefixes whether neighbouring sequences of an item share their common beginning, where it pays
std::vector<ScoreChunk> plan_scores(std::span<const Task> tasks, std::int64_t chunk_tokens, bool share_prefixes);

/// How many tokens of a sequence are scored.
inline std::int64_t scored_tokens(const Task& task, std::int64_t sequence) {
    return task.sequences.length(sequence) - task.scored_from[sequence];
}

}  // namespace fairgptq
