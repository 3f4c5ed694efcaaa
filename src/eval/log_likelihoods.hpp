// How probable a model finds a task's sequences: the one thing every metric is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "calibration/tokens.hpp"
#include "comm/communicator.hpp"
#include "eval/score_journal.hpp"
#include "eval/score_plan.hpp"

namespace fairgptq {

/// What a model says of a chunk's scored rows.
struct RowScores {
    /// [rows]: natural logarithm of the target's probability after the row's token.
    std::vector<float> log_probabilities;
    /// [rows]: whether no other token is more probable; of equal ones the first is the most probable.
    std::vector<std::uint8_t> greedy;
    bool operator==(const RowScores&) const = default;
};

/// Hears of progress: the share that is done, from 0 to 1.
using ShareDone = std::function<void(double)>;

/// A model, as far as scoring is concerned.
class TokenScorer {
  public:
    virtual ~TokenScorer() = default;
    /// @param rows     one entry per chunk
    /// @param progress may be empty
    /// @returns one entry per chunk
    virtual std::vector<RowScores> score(std::span<const ChunkTokens> chunks, std::span<const ScoredRows> rows,
                                         const ShareDone& progress) = 0;
    /// Whether chunks may have prefixes (ChunkTokens::prefixes).
    virtual bool shares_prefixes() const = 0;
};

/// One task's sequences, in the file's order.
struct LogLikelihoods {
    std::vector<double> total;         // sum of the scored tokens' log-probabilities, natural logarithm
    std::vector<std::int64_t> tokens;  // how many were scored: at least 1
    std::vector<std::uint8_t> greedy;  // whether each of them was the most probable token
    double mean(std::int64_t sequence) const { return total[sequence] / static_cast<double>(tokens[sequence]); }
};

struct ScoreOptions {
    std::int64_t chunk_tokens = 8192;
    /// Chunks of a rank that go through the model together: what an interruption costs at most, and what has to fit the
    /// device's memory (chunk_tokens · hidden_size each).
    std::size_t chunks_in_a_pass = 16;
    ScoreJournal* journal = nullptr;  // rank 0's, where scores are to be kept
    ShareDone progress;
};

/// Scores the tasks' sequences. Each task is cut into chunks of whole sequences in the file's order, whatever the
/// number of ranks; chunks are dealt to ranks in turn, so that the number of ranks changes nothing. All ranks call it
/// and get all.
/// @throws Failure naming task and sequence if a log-probability is not finite
std::vector<LogLikelihoods> log_likelihoods(std::span<const Task> tasks, TokenScorer& scorer, Communicator& comm,
                                            const ScoreOptions& options = {});

}  // namespace fairgptq
