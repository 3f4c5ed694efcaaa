// How probable a model finds a task's sequences: the one thing every metric is made of.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "calibration/tokens.hpp"
#include "comm/communicator.hpp"
#include "model/chunks.hpp"

namespace fairgptq {

/// The places in a chunk whose next token is scored.
struct ScoredRows {
    std::vector<std::int32_t> rows;     // tokens of the chunk, ascending
    std::vector<std::int32_t> targets;  // [rows]: the token that follows each
};

/// A model, as far as scoring is concerned.
class TokenScorer {
  public:
    virtual ~TokenScorer() = default;
    /// @param rows one entry per chunk
    /// @returns for each chunk and each of its rows the natural logarithm of the target's probability after that row's
    /// token
    virtual std::vector<std::vector<float>> score(std::span<const ChunkTokens> chunks,
                                                  std::span<const ScoredRows> rows) = 0;
};

/// One task's sequences, in the file's order.
struct LogLikelihoods {
    std::vector<double> total;         // sum of the scored tokens' log-probabilities, natural logarithm
    std::vector<std::int64_t> tokens;  // how many were scored: at least 1
    double mean(std::int64_t sequence) const { return total[sequence] / static_cast<double>(tokens[sequence]); }
};

/// Tokens of a chunk, unless one sequence alone is longer.
constexpr std::int64_t eval_chunk_tokens = 8192;

/// Scores the tasks' sequences. Each task is cut into chunks of whole sequences in the file's order, whatever the
/// number of ranks; chunks are dealt to ranks in turn, so that the number of ranks changes nothing. All ranks call it
/// and get all.
/// @throws Failure naming task and sequence if a log-probability is not finite
std::vector<LogLikelihoods> log_likelihoods(std::span<const Task> tasks, TokenScorer& scorer, Communicator& comm,
                                            std::int64_t chunk_tokens = eval_chunk_tokens);

}  // namespace fairgptq
