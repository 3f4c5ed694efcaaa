#include "eval/log_likelihoods.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "support/error.hpp"

namespace fairgptq {
namespace {

using ChunkScores = std::vector<SequenceScore>;  // of a chunk's sequences

/// Sums over each sequence of the chunk, in token order.
ChunkScores scores_of(const Task& task, const ScoreChunk& chunk, const RowScores& rows) {
    ChunkScores scores;
    std::size_t next = 0;
    for (std::int64_t sequence = chunk.first; sequence < chunk.first + chunk.sequences; ++sequence) {
        SequenceScore score;
        for (std::int64_t token = scored_tokens(task, sequence); token > 0; --token, ++next) {
            const auto place = static_cast<std::size_t>(chunk.places[next]);
            score.total += static_cast<double>(rows.log_probabilities.at(place));
            if (rows.greedy.at(place) == 0) score.greedy = 0;
        }
        if (!std::isfinite(score.total))
            throw Failure("task {}: the log-probability of sequence {} is not a finite number", task.name, sequence);
        scores.push_back(score);
    }
    return scores;
}

/// Rank 0's journal as every rank needs it: an entry per chunk, empty where it is not finished.
std::vector<ChunkScores> finished_before(const std::vector<ScoreChunk>& chunks, const ScoreJournal* journal,
                                         Communicator& comm) {
    std::vector<ChunkScores> finished(chunks.size());
    std::vector<std::uint8_t> known(chunks.size(), 0);
    if (comm.rank() == 0 && journal != nullptr)
        for (const auto& [index, scores] : journal->finished())
            if (index < chunks.size() && static_cast<std::int64_t>(scores.size()) == chunks[index].sequences) {
                finished[index] = scores;
                known[index] = 1;
            }
    comm.broadcast(std::as_writable_bytes(std::span(known)), 0);
    for (std::size_t index = 0; index < chunks.size(); ++index) {
        if (known[index] == 0) continue;
        finished[index].resize(static_cast<std::size_t>(chunks[index].sequences));
        comm.broadcast(std::as_writable_bytes(std::span(finished[index])), 0);
    }
    return finished;
}

/// Every rank's chunks of one pass at every rank. @param pass dealt to ranks in turn
void exchange(std::span<const std::size_t> pass, const std::vector<ScoreChunk>& chunks, Communicator& comm,
              std::vector<ChunkScores>& scores) {
    const auto ranks = static_cast<std::size_t>(comm.size());
    std::vector<std::size_t> sizes(ranks, 0);
    std::size_t sequences = 0;
    ChunkScores mine;
    for (std::size_t place = 0; place < pass.size(); ++place) {
        const auto count = static_cast<std::size_t>(chunks[pass[place]].sequences);
        sizes[place % ranks] += count * sizeof(SequenceScore);
        sequences += count;
        if (place % ranks == static_cast<std::size_t>(comm.rank()))
            mine.insert(mine.end(), scores[pass[place]].begin(), scores[pass[place]].end());
    }
    ChunkScores all(sequences);
    comm.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), sizes);
    auto next = all.begin();
    for (std::size_t rank = 0; rank < ranks; ++rank)
        for (std::size_t place = rank; place < pass.size(); place += ranks) {
            const std::int64_t count = chunks[pass[place]].sequences;
            scores[pass[place]].assign(next, next + count);
            next += count;
        }
}

}  // namespace

std::vector<LogLikelihoods> log_likelihoods(std::span<const Task> tasks, TokenScorer& scorer, Communicator& comm,
                                            const ScoreOptions& options) {
    const std::vector<ScoreChunk> chunks = plan_scores(tasks, options.chunk_tokens, scorer.shares_prefixes());
    std::vector<ChunkScores> scores = finished_before(chunks, options.journal, comm);
    std::vector<std::size_t> missing;
    for (std::size_t index = 0; index < chunks.size(); ++index)
        if (scores[index].empty()) missing.push_back(index);

    const auto ranks = static_cast<std::size_t>(comm.size());
    const std::size_t pass_size = ranks * options.chunks_in_a_pass;
    const auto done = [&](double missing_done) {
        if (!options.progress) return;
        const auto before = static_cast<double>(chunks.size() - missing.size());
        options.progress((before + missing_done) / static_cast<double>(chunks.size()));
    };
    for (std::size_t begin = 0; begin < missing.size(); begin += pass_size) {
        const auto pass = std::span(missing).subspan(begin, std::min(pass_size, missing.size() - begin));
        std::vector<ChunkTokens> tokens;
        std::vector<ScoredRows> rows;
        std::vector<std::size_t> mine;
        for (auto place = static_cast<std::size_t>(comm.rank()); place < pass.size(); place += ranks) {
            mine.push_back(pass[place]);
            tokens.push_back(chunks[pass[place]].tokens);
            rows.push_back(chunks[pass[place]].rows);
        }
        const std::vector<RowScores> found = scorer.score(tokens, rows, [&](double share) {
            done(static_cast<double>(begin) + share * static_cast<double>(pass.size()));
        });
        for (std::size_t place = 0; place < mine.size(); ++place)
            scores[mine[place]] = scores_of(tasks[chunks[mine[place]].task], chunks[mine[place]], found[place]);
        exchange(pass, chunks, comm, scores);
        if (comm.rank() == 0 && options.journal != nullptr) {
            std::map<std::size_t, ChunkScores> finished;
            for (const std::size_t index : pass)
                finished.emplace(index, scores[index]);
            options.journal->add(finished);
        }
    }

    std::vector<LogLikelihoods> results(tasks.size());
    for (std::size_t index = 0; index < chunks.size(); ++index) {  // a task's chunks in the order of its sequences
        LogLikelihoods& result = results[chunks[index].task];
        for (const SequenceScore& score : scores[index]) {
            result.tokens.push_back(
                scored_tokens(tasks[chunks[index].task], static_cast<std::int64_t>(result.total.size())));
            result.total.push_back(score.total);
            result.greedy.push_back(score.greedy != 0 ? 1 : 0);
        }
    }
    return results;
}

}  // namespace fairgptq
