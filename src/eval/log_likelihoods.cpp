#include "eval/log_likelihoods.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "support/error.hpp"

namespace fairgptq {
namespace {

/// Sequences first … end − 1 of one task.
struct Slice {
    std::size_t task = 0;
    std::int64_t first = 0, end = 0;
    std::int64_t sequences() const { return end - first; }
};

std::vector<Slice> cut(std::span<const Task> tasks, std::int64_t chunk_tokens) {
    std::vector<Slice> slices;
    for (std::size_t task = 0; task < tasks.size(); ++task) {
        const Sequences& sequences = tasks[task].sequences;
        for (std::int64_t first = 0; first < sequences.count();) {
            std::int64_t end = first + 1;
            while (end < sequences.count() && sequences.offsets[end + 1] - sequences.offsets[first] <= chunk_tokens)
                ++end;
            slices.push_back({task, first, end});
            first = end;
        }
    }
    return slices;
}

ScoredChunk make_chunk(const Task& task, const Slice& slice) {
    const Sequences& sequences = task.sequences;
    const std::int64_t begin = sequences.offsets[slice.first];
    ScoredChunk chunk;
    chunk.tokens.ids.assign(sequences.ids.begin() + begin, sequences.ids.begin() + sequences.offsets[slice.end]);
    chunk.tokens.offsets.push_back(0);
    for (std::int64_t sequence = slice.first; sequence < slice.end; ++sequence) {
        const std::int64_t start = sequences.offsets[sequence] - begin;
        const std::int64_t end = sequences.offsets[sequence + 1] - begin;
        chunk.tokens.offsets.push_back(end);
        for (std::int64_t token = start + task.scored_from[sequence]; token < end; ++token) {
            chunk.rows.push_back(static_cast<std::int32_t>(token - 1));
            chunk.targets.push_back(chunk.tokens.ids[token]);
        }
    }
    return chunk;
}

std::int64_t scored_tokens(const Task& task, std::int64_t sequence) {
    return task.sequences.length(sequence) - task.scored_from[sequence];
}

/// Sums over each sequence of the slice, in token order.
void add_totals(const Task& task, const Slice& slice, const std::vector<float>& log_probabilities,
                std::vector<double>& totals) {
    std::size_t next = 0;
    for (std::int64_t sequence = slice.first; sequence < slice.end; ++sequence) {
        double total = 0;
        for (std::int64_t token = scored_tokens(task, sequence); token > 0; --token)
            total += log_probabilities.at(next++);
        totals.push_back(total);
    }
}

}  // namespace

std::int64_t largest_chunk(std::span<const Task> tasks, std::int64_t chunk_tokens) {
    std::int64_t largest = 0;
    for (const Slice& slice : cut(tasks, chunk_tokens)) {
        const std::vector<std::int64_t>& offsets = tasks[slice.task].sequences.offsets;
        largest = std::max(largest, offsets[slice.end] - offsets[slice.first]);
    }
    return largest;
}

std::vector<LogLikelihoods> log_likelihoods(std::span<const Task> tasks, TokenScorer& scorer, Communicator& comm,
                                            std::int64_t chunk_tokens) {
    const std::vector<Slice> slices = cut(tasks, chunk_tokens);
    const auto ranks = static_cast<std::size_t>(comm.size());
    const auto rank = static_cast<std::size_t>(comm.rank());

    std::vector<ScoredChunk> chunks;
    for (std::size_t index = rank; index < slices.size(); index += ranks)
        chunks.push_back(make_chunk(tasks[slices[index].task], slices[index]));
    const std::vector<std::vector<float>> scores = scorer.score(chunks);
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
            for (std::int64_t sequence = slices[index].first; sequence < slices[index].end; ++sequence)
                results[slices[index].task].total[sequence] = *next++;
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
