#include "eval/score_plan.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace fairgptq {
namespace {

/// A shorter common beginning costs more in small products than it saves.
constexpr std::int64_t least_shared = 4;

/// Neighbouring sequences of one item and their common beginning.
struct Run {
    std::int64_t first = 0;
    std::int64_t count = 0;
    std::int64_t shared = 0;  // tokens
    std::int64_t tokens = 0;  // of all of them, the shared ones once
};

/// The tokens that go through the model: all but the last.
std::span<const std::int32_t> computed(const Task& task, std::int64_t sequence) {
    return std::span(task.sequences.ids)
        .subspan(static_cast<std::size_t>(task.sequences.offsets[sequence]),
                 static_cast<std::size_t>(task.sequences.length(sequence) - 1));
}

/// Takes in the next sequence as long as more is shared than without it, and the run still fits a chunk.
Run next_run(const Task& task, std::int64_t first, std::int64_t chunk_tokens, bool share_prefixes) {
    const auto start = computed(task, first);
    Run run{first, 1, 0, static_cast<std::int64_t>(start.size())};
    auto total = static_cast<std::int64_t>(start.size());  // without sharing
    while (share_prefixes && !task.item.empty() && run.first + run.count < task.sequences.count() &&
           task.item[run.first + run.count] == task.item[first]) {
        const auto next = computed(task, run.first + run.count);
        const auto limit = run.count == 1 ? start : start.first(static_cast<std::size_t>(run.shared));
        const std::int64_t shared =
            std::mismatch(limit.begin(), limit.end(), next.begin(), next.end()).first - limit.begin();
        const auto next_total = total + static_cast<std::int64_t>(next.size());
        const std::int64_t tokens = next_total - run.count * shared;
        if (shared < least_shared || run.count * shared < (run.count - 1) * run.shared || tokens > chunk_tokens) break;
        total = next_total;
        run = {first, run.count + 1, shared, tokens};
    }
    return run;
}

class Builder {
  public:
    Builder(const Task& task, std::size_t index, std::int64_t first) : task_(&task) {
        chunk_.task = index;
        chunk_.first = first;
        chunk_.tokens.offsets = {0};
    }
    std::int64_t tokens() const { return chunk_.tokens.tokens(); }

    void add(const Run& run) {
        const RowRange prefix = append(computed(*task_, run.first).first(static_cast<std::size_t>(run.shared)), {});
        for (std::int64_t sequence = run.first; sequence < run.first + run.count; ++sequence) {
            const RowRange own =
                append(computed(*task_, sequence).subspan(static_cast<std::size_t>(run.shared)), prefix);
            score(sequence, prefix, own);
            ++chunk_.sequences;
        }
    }

    ScoreChunk finish() {
        const auto empty = [](RowRange range) { return range.size() == 0; };
        if (std::all_of(chunk_.tokens.prefixes.begin(), chunk_.tokens.prefixes.end(), empty))
            chunk_.tokens.prefixes.clear();
        return std::move(chunk_);
    }

  private:
    RowRange append(std::span<const std::int32_t> ids, RowRange prefix) {
        const RowRange rows{tokens(), tokens() + static_cast<std::int64_t>(ids.size())};
        if (ids.empty()) return rows;  // nothing beyond what is shared
        chunk_.tokens.ids.insert(chunk_.tokens.ids.end(), ids.begin(), ids.end());
        chunk_.tokens.offsets.push_back(rows.end);
        chunk_.tokens.prefixes.push_back(prefix);
        return rows;
    }

    void score(std::int64_t sequence, RowRange prefix, RowRange own) {
        const std::int64_t offset = task_->sequences.offsets[sequence];
        for (std::int64_t token = task_->scored_from[sequence]; token < task_->sequences.length(sequence); ++token) {
            const std::int64_t before = token - 1;  // the token after which this one is predicted
            const std::int64_t row =
                before < prefix.size() ? prefix.begin + before : own.begin + before - prefix.size();
            const std::pair key{static_cast<std::int32_t>(row), task_->sequences.ids[offset + token]};
            const auto [place, is_new] = known_.emplace(key, static_cast<std::int32_t>(chunk_.rows.rows.size()));
            if (is_new) {
                chunk_.rows.rows.push_back(key.first);
                chunk_.rows.targets.push_back(key.second);
            }
            chunk_.places.push_back(place->second);
        }
    }

    const Task* task_;
    ScoreChunk chunk_;
    std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> known_;
};

}  // namespace

std::vector<ScoreChunk> plan_scores(std::span<const Task> tasks, std::int64_t chunk_tokens, bool share_prefixes) {
    std::vector<ScoreChunk> chunks;
    for (std::size_t index = 0; index < tasks.size(); ++index) {
        const Task& task = tasks[index];
        Builder builder(task, index, 0);
        for (std::int64_t sequence = 0; sequence < task.sequences.count();) {
            const Run run = next_run(task, sequence, chunk_tokens, share_prefixes);
            if (builder.tokens() > 0 && builder.tokens() + run.tokens > chunk_tokens) {
                chunks.push_back(builder.finish());
                builder = Builder(task, index, sequence);
            }
            builder.add(run);
            sequence += run.count;
        }
        if (builder.tokens() > 0) chunks.push_back(builder.finish());
    }
    return chunks;
}

}  // namespace fairgptq
