#include "eval/log_likelihoods.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "support/error.hpp"

namespace fairgptq {
namespace {

/// One chunk, and the sequences first … first + sequences() − 1 of a task that it holds.
struct Slice {
    std::size_t task = 0;
    std::int64_t first = 0;
    ChunkTokens tokens;
    std::int64_t sequences() const { return static_cast<std::int64_t>(tokens.offsets.size()) - 1; }
};

std::vector<Slice> cut(std::span<const Task> tasks, std::int64_t chunk_tokens) {
    std::vector<Slice> slices;
    for (std::size_t task = 0; task < tasks.size(); ++task) {
        std::int64_t first = 0;
        for (ChunkTokens& chunk :
             cut_into_chunks(tasks[task].sequences.ids, tasks[task].sequences.offsets, chunk_tokens)) {
            slices.push_back({task, first, std::move(chunk)});
            first += slices.back().sequences();
        }
    }
    return slices;
}

ScoredRows rows_of(const Task& task, const Slice& slice) {
    ScoredRows result;
    for (std::int64_t sequence = 0; sequence < slice.sequences(); ++sequence) {
        const std::int64_t start = slice.tokens.offsets[sequence];
        const std::int64_t end = slice.tokens.offsets[sequence + 1];
        for (std::int64_t token = start + task.scored_from[slice.first + sequence]; token < end; ++token) {
            result.rows.push_back(static_cast<std::int32_t>(token - 1));
            result.targets.push_back(slice.tokens.ids[token]);
        }
    }
    return result;
}

std::int64_t scored_tokens(const Task& task, std::int64_t sequence) {
    return task.sequences.length(sequence) - task.scored_from[sequence];
}

/// Sums over each sequence of the slice, in token order.
void add_totals(const Task& task, const Slice& slice, const std::vector<float>& log_probabilities,
                std::vector<double>& totals) {
    std::size_t next = 0;
    for (std::int64_t sequence = 0; sequence < slice.sequences(); ++sequence) {
        double total = 0;
        for (std::int64_t token = scored_tokens(task, slice.first + sequence); token > 0; --token)
            total += log_probabilities.at(next++);
        totals.push_back(total);
    }
}

}  // namespace

std::vector<LogLikelihoods> log_likelihoods(std::span<const Task> tasks, TokenScorer& scorer, Communicator& comm,
                                            std::int64_t chunk_tokens) {
    const std::vector<Slice> slices = cut(tasks, chunk_tokens);
    const auto ranks = static_cast<std::size_t>(comm.size());
    const auto rank = static_cast<std::size_t>(comm.rank());

    std::vector<ChunkTokens> chunks;
    std::vector<ScoredRows> rows;
    for (std::size_t index = rank; index < slices.size(); index += ranks) {
        rows.push_back(rows_of(tasks[slices[index].task], slices[index]));
        chunks.push_back(slices[index].tokens);
    }
    const std::vector<std::vector<float>> scores = scorer.score(chunks, rows);
    std::vector<double> mine;
    for (std::size_t chunk = 0; chunk < chunks.size(); ++chunk) {
        const Slice& slice = slices[rank + chunk * ranks];
        add_totals(tasks[slice.task], slice, scores[chunk], mine);
    }

    std::vector<std::size_t> sizes(ranks, 0);
    std::size_t sequences = 0;
    for (std::size_t index = 0; index < slices.size(); ++index) {
        sizes[index % ranks] += static_cast<std::size_t>(slices[index].sequences()) * sizeof(double);
        sequences += static_cast<std::size_t>(slices[index].sequences());
    }
    std::vector<double> all(sequences);
    comm.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), sizes);

    std::vector<LogLikelihoods> results(tasks.size());
    for (std::size_t task = 0; task < tasks.size(); ++task)
        results[task].total.resize(static_cast<std::size_t>(tasks[task].sequences.count()));
    const double* next = all.data();
    for (std::size_t from = 0; from < ranks; ++from)
        for (std::size_t index = from; index < slices.size(); index += ranks)
            for (std::int64_t sequence = 0; sequence < slices[index].sequences(); ++sequence)
                results[slices[index].task].total[slices[index].first + sequence] = *next++;
    for (std::size_t task = 0; task < tasks.size(); ++task)
        for (std::int64_t sequence = 0; sequence < tasks[task].sequences.count(); ++sequence) {
            if (!std::isfinite(results[task].total[sequence]))
                throw Failure("task {}: the log-probability of sequence {} is not a finite number", tasks[task].name,
                              sequence);
            results[task].tokens.push_back(scored_tokens(tasks[task], sequence));
        }
    return results;
}

}  // namespace fairgptq
